/** This worker's part of the persistent state, on shared memory. */
import { type RunSpec, shardOf, stateKinds, statePartsOf } from "@paddock/contract";
import type { Membership, ShardState } from "../engine/calls.js";

/** Zeroed shards of all that the run keeps. */
export function allocateState(spec: RunSpec, { worker, workers }: Membership): ShardState {
  const parts = statePartsOf(spec).map(({ kind, units }) => {
    const shards: Record<string, Float32Array> = {};
    for (const unit of units) {
      const { start, end } = shardOf(unit.elements, worker, workers);
      shards[unit.name] = new Float32Array(new SharedArrayBuffer((end - start) * 4));
    }
    return [kind, shards] as const;
  });
  return Object.fromEntries(parts) as ShardState;
}

export function stateBytes(state: ShardState): number {
  let bytes = 0;
  for (const kind of stateKinds) {
    for (const shard of Object.values(state[kind])) bytes += shard.byteLength;
  }
  return bytes;
}
