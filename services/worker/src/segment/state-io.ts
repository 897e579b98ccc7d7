/** This worker's shards to and from a checkpoint, whatever the number of workers that wrote it. */
import { type Layout, PaddockError, type RunSpec, shardOf } from "@paddock/contract";
import { type Centers, initialCenters } from "@paddock/model";
import { openCheckpoint } from "../checkpoint/reader.js";
import { type ShardEntry, writeShardFile } from "../checkpoint/writer.js";
import { type Membership, type ShardState, stateKinds } from "../engine/calls.js";

interface Saved {
  readonly directory: string;
  readonly step: number;
  readonly membership: Membership;
  readonly layout: Layout;
  readonly state: ShardState;
  /** Worker 0 saves the centres, the others pass null. */
  readonly centers: Centers | null;
  readonly spec: RunSpec;
}

/** Writes this worker's file: "<kind>/<unit>" for every unit, and "centers/<name>" on worker 0. */
export function saveState(saved: Saved): Promise<{ name: string; bytes: number; sha256: string }> {
  const { directory, step, membership, layout, state, centers } = saved;
  const entries: ShardEntry[] = [];
  for (const kind of stateKinds) {
    for (const unit of layout.units) {
      const { start, end } = shardOf(unit.elements, membership.worker, membership.workers);
      const data = state[kind][unit.name] as Float32Array;
      entries.push({ name: `${kind}/${unit.name}`, data, range: { start, end } });
    }
  }
  for (const [name, data] of Object.entries(centers ?? {})) {
    if (data) entries.push({ name: `centers/${name}`, data });
  }
  return writeShardFile({ directory, step, ...membership, entries });
}

/** Fills the shards from the checkpoint in `directory`; returns the centres. */
export async function loadState(
  target: Pick<Saved, "directory" | "membership" | "layout" | "state" | "spec">,
): Promise<Centers> {
  const { directory, membership, layout, state, spec } = target;
  const checkpoint = await openCheckpoint(directory, layout);
  try {
    for (const kind of stateKinds) {
      for (const unit of layout.units) {
        const { start, end } = shardOf(unit.elements, membership.worker, membership.workers);
        const values = await checkpoint.readRange(kind, unit.name, start, end);
        state[kind][unit.name]?.set(values);
      }
    }
    const centers: Record<string, Float32Array | null> = {};
    for (const [name, initial] of Object.entries(initialCenters(spec))) {
      // A pending mean is null before the first step, so only a centre can be missing.
      centers[name] = (await checkpoint.extra(`centers/${name}`)) ?? null;
      if (initial && centers[name]?.length !== initial.length) {
        throw new PaddockError(
          "checkpoint-corrupt",
          `${directory}: expected centers/${name} with ${initial.length} values, received ${centers[name]?.length ?? 0}`,
        );
      }
    }
    return centers as unknown as Centers;
  } finally {
    await checkpoint.close();
  }
}
