/** All shards that a worker keeps in one generation: its own and, with `fleet.redundancy: shadow`, another worker's. */
import {
  type Layout,
  layoutOf,
  type RunSpec,
  type StatePart,
  shardOf,
  statePartsOf,
} from "@paddock/contract";
import type { Membership, ShadowOf, ShardState } from "../engine/calls.js";
import { allocateState } from "./state.js";

export interface Shards {
  readonly spec: RunSpec;
  readonly layout: Layout;
  /** The kinds of state there are, with their units. */
  readonly parts: readonly StatePart[];
  readonly membership: Membership;
  readonly state: ShardState;
  readonly shadow: ShadowOf<Float32Array> | null;
}

/** Zeroed. @param shadow index of the worker whose shards are kept too; -1: none */
export function allocateShards(spec: RunSpec, membership: Membership, shadow: number): Shards {
  const layout = layoutOf(spec);
  return {
    spec,
    layout,
    parts: statePartsOf(spec, layout),
    membership,
    state: allocateState(spec, membership),
    shadow:
      shadow < 0
        ? null
        : { worker: shadow, state: allocateState(spec, { ...membership, worker: shadow }) },
  };
}

/** Each worker's shards that are kept here: own ones first. */
export function keptShards(shards: Shards): readonly Omit<Shards, "shadow" | "parts">[] {
  const { spec, layout, membership, state, shadow } = shards;
  const own = { spec, layout, membership, state };
  if (!shadow) return [own];
  const other = { ...membership, worker: shadow.worker };
  return [own, { spec, layout, membership: other, state: shadow.state }];
}

/** A range of one unit in one kind of state. */
export interface ShardRange {
  readonly kind: string;
  readonly unit: string;
  /** Elements [start, end) of the unit's flat vector. */
  readonly start: number;
  readonly end: number;
}

/** A view of the range; undefined where it is not wholly in one of the shards that are kept here. */
export function viewOfShards(shards: Shards, range: ShardRange): Float32Array | undefined {
  const part = shards.parts.find(({ kind }) => kind === range.kind);
  const unit = part?.units.find(({ name }) => name === range.unit);
  if (!part || !unit) return undefined;
  for (const { membership, state } of keptShards(shards)) {
    const { start, end } = shardOf(unit.elements, membership.worker, membership.workers);
    const values = state[part.kind][unit.name];
    if (values && start <= range.start && range.end <= end) {
      return values.subarray(range.start - start, range.end - start);
    }
  }
  return undefined;
}
