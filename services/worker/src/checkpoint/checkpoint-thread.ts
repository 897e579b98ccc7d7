/**
 * The worker_thread that saves and loads checkpoints beside the training, for a worker's whole life. It keeps the memory of one save: the
 * bytes of this worker's largest file, in whole pieces of 8 MiB.
 */
import { parentPort } from "node:worker_threads";
import { invariant } from "@paddock/contract";
import { createRpc } from "../engine/rpc.js";
import { loadCheckpoint } from "./load.js";
import { PieceMemory } from "./pieces.js";
import type { CheckpointCalls, CheckpointHostCalls } from "./thread-calls.js";
import { writeShardFile } from "./writer.js";

invariant(parentPort, "checkpoint-thread.js runs as a worker_thread");

const memory = new PieceMemory();
/** The save that uses the memory; the next one waits for it. */
let saving: Promise<unknown> = Promise.resolve();

const progressMs = 1_000;

/** Tells the main thread, now and then. */
function progressOf(id: number): () => void {
  let last = performance.now();
  return () => {
    const now = performance.now();
    if (now - last < progressMs) return;
    last = now;
    void host.call("moved", { id });
  };
}

const calls: CheckpointCalls = {
  save({ id, shard }) {
    const written = saving.then(() =>
      writeShardFile(shard, {
        memory,
        onCopied: () => void host.call("copied", { id }),
        onProgress: progressOf(id),
      }),
    );
    saving = written.catch(() => undefined);
    return written;
  },
  load: ({ id, directory, expected, wanted }) =>
    loadCheckpoint(directory, expected, wanted, progressOf(id)),
};

const host = createRpc<CheckpointHostCalls, CheckpointCalls>(parentPort, calls);
