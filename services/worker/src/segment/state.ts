/** This worker's part of the persistent state: 16 bytes per parameter / W, on shared memory. */
import { type Layout, shardOf } from "@paddock/contract";
import { type Membership, type ShardState, stateKinds } from "../engine/calls.js";

/** Zeroed shards of student, m, v and teacher. */
export function allocateState(layout: Layout, { worker, workers }: Membership): ShardState {
  const kindOf = (): Record<string, Float32Array> => {
    const shards: Record<string, Float32Array> = {};
    for (const unit of layout.units) {
      const { start, end } = shardOf(unit.elements, worker, workers);
      shards[unit.name] = new Float32Array(new SharedArrayBuffer((end - start) * 4));
    }
    return shards;
  };
  return { student: kindOf(), m: kindOf(), v: kindOf(), teacher: kindOf() };
}

export function stateBytes(state: ShardState): number {
  let bytes = 0;
  for (const kind of stateKinds) {
    for (const shard of Object.values(state[kind])) bytes += shard.byteLength;
  }
  return bytes;
}
