/**
 * Saves beside the training: a thread copies the shards while the next step is computed, then hashes and writes the copy while training goes
 * on. It keeps one copy of the shards, and does one save at a time.
 */
import { type MessagePort, Worker } from "node:worker_threads";
import { type ErrorCode, isErrorCode, PaddockError } from "@paddock/contract";
import type { ShardFile, WrittenFile } from "./writer.js";

export interface Saving {
  /** The shards may change again. Rejects with what `written` rejects with. */
  readonly copied: Promise<void>;
  /** The file is on disk. Rejects with `disk-unavailable`, or with the reason of `close`. */
  readonly written: Promise<WrittenFile>;
}

export interface Saver {
  /** The data of the entries lies on shared memory, or is small: it crosses to the thread. */
  save(shard: ShardFile): Saving;
  /** Ends the thread; what it writes is left as a temporary file. */
  close(): Promise<void>;
}

export type SaverRequest = { readonly id: number; readonly shard: ShardFile };
export type SaverReply =
  | { readonly kind: "copied"; readonly id: number }
  | { readonly kind: "written"; readonly id: number; readonly file: WrittenFile }
  | {
      readonly kind: "failed";
      readonly id: number;
      readonly code: string;
      readonly message: string;
    };

interface Waiting {
  readonly copied: () => void;
  readonly written: (file: WrittenFile) => void;
  readonly failed: (error: PaddockError) => void;
}

/** The other side: a thread, or in tests a port to serve in this one. */
export type SaverPort = MessagePort | Worker;

/** Starts the thread. */
export function startSaver(): Saver {
  const thread = new Worker(new URL("./saver-thread.js", import.meta.url));
  // It does not keep the process alive: a worker that ends has nothing more to save.
  thread.unref();
  const saver = saverOn(thread, async () => void (await thread.terminate()));
  thread.on("error", saver.died);
  return saver;
}

/** @param terminate ends the other side */
export function saverOn(
  thread: SaverPort,
  terminate: () => Promise<void>,
): Saver & { died(error: Error): void } {
  const waiting = new Map<number, Waiting>();
  let lastId = 0;
  const failAll = (error: PaddockError): void => {
    for (const { failed } of waiting.values()) failed(error);
    waiting.clear();
  };
  thread.on("message", (reply: SaverReply) => {
    const who = waiting.get(reply.id);
    if (reply.kind === "copied") {
      who?.copied();
      return;
    }
    waiting.delete(reply.id);
    if (reply.kind === "written") who?.written(reply.file);
    else who?.failed(new PaddockError(codeOf(reply.code), reply.message));
  });
  return {
    died(error) {
      const what = `the checkpoint thread died: ${error.message}`;
      failAll(new PaddockError("internal", what, { cause: error }));
    },
    save(shard) {
      lastId += 1;
      const id = lastId;
      const [copied, written] = [settle<void>(), settle<WrittenFile>()];
      const failed = (error: PaddockError): void => {
        copied.reject(error);
        written.reject(error);
      };
      waiting.set(id, { copied: copied.resolve, written: written.resolve, failed });
      thread.postMessage({ id, shard } satisfies SaverRequest);
      return { copied: copied.promise, written: written.promise };
    },
    async close() {
      failAll(new PaddockError("stale-generation", "the worker is closing"));
      await terminate();
    },
  };
}

function codeOf(code: string): ErrorCode {
  return isErrorCode(code) ? code : "internal";
}

/** A promise and its ends; nobody need wait for it. */
function settle<T>() {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: Error) => void = () => undefined;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}
