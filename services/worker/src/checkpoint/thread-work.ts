/** What the checkpoint thread does: one save after the other, loads beside them. */
import { loadCheckpoint } from "./load.js";
import { PieceMemory } from "./pieces.js";
import type { CheckpointCalls, CheckpointHostCalls } from "./thread-calls.js";
import { writeShardFile } from "./writer.js";

/** Between two messages about one activity. */
const progressMs = 1_000;

/**
 * Keeps the memory of one save: the bytes of this worker's largest file, in whole pieces of 8 MiB.
 * @param tell to the main thread
 */
export function checkpointCalls(
  tell: (name: keyof CheckpointHostCalls, id: number) => void,
): CheckpointCalls {
  const memory = new PieceMemory();
  /** The save that uses the memory; the next one waits for it. */
  let saving: Promise<unknown> = Promise.resolve();
  const progressOf = (id: number): (() => void) => {
    let last = performance.now();
    return () => {
      const now = performance.now();
      if (now - last < progressMs) return;
      last = now;
      tell("moved", id);
    };
  };
  return {
    save({ id, shard }) {
      const onCopied = (): void => tell("copied", id);
      const written = saving.then(() =>
        writeShardFile(shard, { memory, onCopied, onProgress: progressOf(id) }),
      );
      saving = written.catch(() => undefined);
      return written;
    },
    load: ({ id, directory, expected, wanted }) =>
      loadCheckpoint(directory, expected, wanted, progressOf(id)),
  };
}
