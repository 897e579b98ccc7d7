/** What the checkpoint thread does: one save after the other (and one of replicas), one load after the other beside them. */
import type { PieceMemory } from "@paddock/service-kit/checkpoint-store";
import { loadCheckpoint } from "./load.js";
import { newPieceMemory } from "./memory.js";
import type { CheckpointCalls, CheckpointHostCalls } from "./thread-calls.js";
import { writeShardFile } from "./writer.js";

/** Between two messages about one activity. */
const progressMs = 1_000;

/** Memory for one save or load, and the one that uses it: the next one waits for that. */
interface Lane {
  readonly memory: PieceMemory;
  busy: Promise<unknown>;
}

function newLane(): Lane {
  return { memory: newPieceMemory(), busy: Promise.resolve() };
}

function inTurn<T>(lane: Lane, work: (memory: PieceMemory) => Promise<T>): Promise<T> {
  const done = lane.busy.then(() => work(lane.memory));
  lane.busy = done.catch(() => undefined);
  return done;
}

/**
 * Keeps the memory of one save: the bytes of this worker's largest file, in whole pieces of 8 MiB; and as much for replicas, if there are any;
 * and 32 MiB of loads: new memory each time makes V8 collect for 30 ms first.
 * @param tell to the main thread
 */
export function checkpointCalls(
  tell: (name: keyof CheckpointHostCalls, id: number) => void,
): CheckpointCalls {
  const [own, replicas, loads] = [newLane(), newLane(), newLane()];
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
      return inTurn(shard.isReplica ? replicas : own, (memory) =>
        writeShardFile(shard, { memory, onCopied, onProgress: progressOf(id) }),
      );
    },
    load: ({ id, directory, expected, wanted }) =>
      inTurn(loads, (memory) =>
        loadCheckpoint(directory, expected, wanted, { memory, onProgress: progressOf(id) }),
      ),
  };
}
