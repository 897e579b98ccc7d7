/** The main thread's handle on the checkpoint thread. */
import { Worker } from "node:worker_threads";
import { invariant, PaddockError } from "@paddock/contract";
import { createRpc } from "../engine/rpc.js";
import type { Loaded } from "./load.js";
import type { CheckpointCalls, CheckpointHostCalls, LoadRequest } from "./thread-calls.js";
import type { ShardFile, WrittenFile } from "./writer.js";

export interface Saving {
  /** Settles when the data may change again: they have been copied, or the save has failed. Never rejects. */
  readonly copied: Promise<void>;
  /** Rejects with `disk-unavailable`. */
  readonly written: Promise<WrittenFile>;
}

export interface CheckpointHost {
  /** Begins when the save before is done: there is memory for one copy. The data must lie on shared memory, or they are copied here and now. */
  save(shard: ShardFile, onProgress?: () => void): Saving;
  /** As `loadCheckpoint`. */
  load(request: LoadRequest, onProgress?: () => void): Promise<Loaded>;
  /** Ends the thread wherever it is; a file in progress stays under its temporary name. */
  terminate(reason: PaddockError): Promise<void>;
}

/** Starts the thread. If it dies, every pending call rejects with `run-failed`. */
export function startCheckpointThread(): CheckpointHost {
  const thread = new Worker(new URL("./checkpoint-thread.js", import.meta.url));
  const copies = new Map<number, () => void>();
  const moves = new Map<number, () => void>();
  const rpc = createRpc<CheckpointCalls, CheckpointHostCalls>(thread, {
    async copied({ id }) {
      copies.get(id)?.();
    },
    async moved({ id }) {
      moves.get(id)?.();
    },
  });
  const died = (why: string, cause?: unknown): void =>
    rpc.fail(new PaddockError("run-failed", `the checkpoint thread ${why}`, { cause }));
  thread.on("error", (error) => died(`died: ${error.message}`, error));
  thread.on("exit", (code) => died(`exited with code ${code}`));
  let lastId = 0;
  const nextId = (onProgress: (() => void) | undefined): number => {
    lastId += 1;
    if (onProgress) moves.set(lastId, onProgress);
    return lastId;
  };
  const forget = (id: number, done: Promise<unknown>): void => {
    const drop = (): void => void moves.delete(id);
    done.then(drop, drop);
  };
  return {
    save(shard, onProgress) {
      const id = nextId(onProgress);
      const written = rpc.call("save", { id, shard });
      const copied = new Promise<void>((resolve) => {
        copies.set(id, resolve);
        written.then(
          () => resolve(),
          () => resolve(),
        );
      });
      void copied.then(() => copies.delete(id));
      forget(id, written);
      return { copied, written };
    },
    load(request, onProgress) {
      for (const { kind, unit, target } of request.wanted) {
        const isShared = target.buffer instanceof SharedArrayBuffer;
        invariant(isShared, `${kind}/${unit} is to be loaded into memory that is not shared`);
      }
      const id = nextId(onProgress);
      const loaded = rpc.call("load", { ...request, id });
      forget(id, loaded);
      return loaded;
    },
    async terminate(reason) {
      rpc.fail(reason);
      await thread.terminate();
    },
  };
}
