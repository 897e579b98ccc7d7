/** What the checkpoint thread does: one save after the other (and one of replicas), loads beside them. */
import type { PieceMemory } from "@paddock/service-kit/checkpoint-store";
import { loadCheckpoint } from "./load.js";
import { newPieceMemory } from "./memory.js";
import type { CheckpointCalls, CheckpointHostCalls } from "./thread-calls.js";
import { writeShardFile } from "./writer.js";

/** Between two messages about one activity. */
const progressMs = 1_000;

/** Memory for one save, and the save that uses it: the next one waits for that. */
function newLane(): { readonly memory: PieceMemory; saving: Promise<unknown> } {
  return { memory: newPieceMemory(), saving: Promise.resolve() };
}

/**
 * Keeps the memory of one save: the bytes of this worker's largest file, in whole pieces of 8 MiB; and as much for replicas, if there are any.
 * @param tell to the main thread
 */
export function checkpointCalls(
  tell: (name: keyof CheckpointHostCalls, id: number) => void,
): CheckpointCalls {
  const [own, replicas] = [newLane(), newLane()];
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
      const lane = shard.isReplica ? replicas : own;
      const { memory } = lane;
      const written = lane.saving.then(() =>
        writeShardFile(shard, { memory, onCopied, onProgress: progressOf(id) }),
      );
      lane.saving = written.catch(() => undefined);
      return written;
    },
    load: ({ id, directory, expected, wanted }) =>
      loadCheckpoint(directory, expected, wanted, progressOf(id)),
  };
}
