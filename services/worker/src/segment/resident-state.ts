/**
 * The shards where the engine computes: on the host they are the shared arrays that checkpoints and peers read; on a device they
 * are vectors of its own, and `sync` brings the arrays up to date. Between steps nothing else moves between device and host.
 */
import { stateKinds } from "@paddock/contract";
import type { VectorSpace } from "@paddock/model";
import type { ShardState, StateOf } from "../engine/calls.js";

export interface ResidentState<V> {
  readonly state: StateOf<V>;
  /** Writes the vectors' values into the arrays. */
  sync(): void;
  /** Frees the vectors. The arrays stay as they are. */
  close(): void;
}

export function residentState<V>(vectors: VectorSpace<V>, arrays: ShardState): ResidentState<V> {
  const entries = stateKinds.map((kind) => {
    const units = Object.entries(arrays[kind]);
    return [kind, Object.fromEntries(units.map(([unit, x]) => [unit, vectors.from(x)]))] as const;
  });
  const state = Object.fromEntries(entries) as unknown as StateOf<V>;
  const each = (use: (vector: V, array: Float32Array) => void): void => {
    for (const kind of stateKinds) {
      for (const [unit, array] of Object.entries(arrays[kind])) use(state[kind][unit] as V, array);
    }
  };
  return {
    state,
    sync: () => each((vector, array) => vectors.read(vector, array)),
    close: () => each((vector) => vectors.dispose(vector)),
  };
}
