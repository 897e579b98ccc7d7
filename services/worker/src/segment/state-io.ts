/** This worker's shards to and from checkpoints, whatever the number of workers that wrote them. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  invariant,
  type Layout,
  PaddockError,
  type RunSpec,
  type StateKind,
  shardOf,
  statePartsOf,
  type Unit,
} from "@paddock/contract";
import { type Centers, initialCenters } from "@paddock/model";
import { type Checkpoint, openCheckpoint } from "../checkpoint/reader.js";
import type { ShardEntry, ShardFile } from "../checkpoint/writer.js";
import type { Membership, ShardState } from "../engine/calls.js";
import { loadBackbone } from "../weights/load-backbone.js";

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

/** What goes into this worker's file: "<kind>/<unit>" for every unit, and "centers/<name>" on worker 0. */
export function fileOf(saved: Saved): ShardFile {
  const { directory, step, membership, layout, state, centers, spec } = saved;
  const entries: ShardEntry[] = [];
  for (const { kind, units } of savedParts(spec, layout)) {
    for (const unit of units) {
      const { start, end } = shardOf(unit.elements, membership.worker, membership.workers);
      const data = state[kind][unit.name] as Float32Array;
      entries.push({ name: `${kind}/${unit.name}`, data, range: { start, end } });
    }
  }
  for (const [name, data] of Object.entries(centers ?? {})) {
    if (data) entries.push({ name: `centers/${name}`, data });
  }
  const { generation, worker, workers } = membership;
  return { directory, step, generation, worker, workers, entries };
}

type Target = Pick<Saved, "directory" | "membership" | "layout" | "state" | "spec">;

/**
 * Fills the shards from the run's own checkpoint in `directory`; returns the centres.
 * @param sha256 of its manifest, as the ledger has it
 */
export async function loadState(target: Target, sha256: string): Promise<Centers> {
  const { directory, layout, spec } = target;
  const parts = savedParts(spec, layout);
  const expected = sha256 === "" ? null : sha256;
  const checkpoint = await openCheckpoint(directory, { parts, units: "own", sha256: expected });
  const centers = await using(checkpoint, async () => {
    for (const { kind, units } of parts) await copyUnits(target, checkpoint, units, kind, kind);
    return centersOf(target, checkpoint);
  });
  await loadDistillationTeacher(target);
  return centers;
}

/** What a run's first shards still lack. */
export interface Initial {
  /** Null: those of a new run. */
  readonly centers: Centers | null;
  /** Units that are still to be drawn from the seed: student and teacher, and a gram teacher that is to be their copy. */
  readonly drawn: readonly string[];
}

/** Fills the shards that a new run takes from elsewhere (`init`, frozen teachers). */
export async function loadInitial(target: Omit<Target, "directory">): Promise<Initial> {
  const { spec, state } = target;
  await loadDistillationTeacher(target);
  const initial = await loadWeights(target);
  const { gram } = spec.loss;
  if (gram?.teacher !== "frozen") return initial;
  if (gram.checkpoint !== null) {
    await loadTeacher({ ...target, directory: gram.checkpoint }, ["frozen"], gram.sha256);
  } else {
    for (const [unit, shard] of Object.entries(state.frozen)) {
      if (!initial.drawn.includes(unit)) shard.set(state.teacher[unit] as Float32Array);
    }
  }
  return initial;
}

async function loadWeights(target: Omit<Target, "directory">): Promise<Initial> {
  const { init } = target.spec;
  const { units } = target.layout;
  if (!init) return { centers: null, drawn: units.map(({ name }) => name) };
  const { checkpoint: directory, load, sha256 } = init;
  if (load === "resume") {
    const parts = savedParts(target.spec, target.layout);
    // The run that goes on may have had no gram teacher: then this one's starts from the EMA teacher.
    const own = parts.filter(({ kind }) => kind !== "frozen");
    const checkpoint = await openCheckpoint(directory, { parts: own, units: "own", sha256 });
    const centers = await using(checkpoint, async () => {
      for (const { kind, units } of own) await copyUnits(target, checkpoint, units, kind, kind);
      return centersOf({ ...target, directory }, checkpoint);
    });
    return { centers, drawn: [] };
  }
  if (load === "teacher") {
    await loadTeacher({ ...target, directory }, ["student", "teacher"], sha256);
    return { centers: null, drawn: [] };
  }
  const [heads, backbone] = [units.filter(isHead), units.filter((unit) => !isHead(unit))];
  if (existsSync(join(directory, "manifest.json"))) {
    await loadTeacher({ ...target, directory }, ["student", "teacher"], sha256, backbone);
  } else {
    await loadBackbone({ ...target, path: directory, sha256 });
  }
  return { centers: null, drawn: heads.map(({ name }) => name) };
}

function isHead({ submodule }: Unit): boolean {
  return submodule !== "backbone";
}

/** A checkpoint's teacher into some kinds of state: all units of these, or some. */
async function loadTeacher(
  target: Target,
  kinds: readonly StateKind[],
  sha256: string | null,
  some?: readonly Unit[],
): Promise<void> {
  const wanted = statePartsOf(target.spec, target.layout).filter(({ kind }) =>
    kinds.includes(kind),
  );
  const units = some ?? wanted[0]?.units ?? [];
  const parts = [{ kind: "teacher" as const, units }];
  const checkpoint = await openCheckpoint(target.directory, { parts, units: "part", sha256 });
  await using(checkpoint, async () => {
    for (const kind of kinds) await copyUnits(target, checkpoint, units, "teacher", kind);
  });
}

async function loadDistillationTeacher(target: Omit<Target, "directory">): Promise<void> {
  const { distillation } = target.spec;
  if (!distillation) return;
  await loadTeacher(
    { ...target, directory: distillation.checkpoint },
    ["frozen"],
    distillation.sha256,
  );
}

async function copyUnits(
  { membership, state }: Pick<Target, "membership" | "state">,
  checkpoint: Checkpoint,
  units: readonly Unit[],
  from: StateKind,
  to: StateKind,
): Promise<void> {
  for (const unit of units) {
    const { start, end } = shardOf(unit.elements, membership.worker, membership.workers);
    const values = await checkpoint.readRange(from, unit.name, start, end);
    const shard = state[to][unit.name];
    invariant(shard, `the state has no ${to}/${unit.name}`);
    shard.set(values);
  }
}

async function centersOf(
  { directory, spec }: Pick<Target, "directory" | "spec">,
  checkpoint: Checkpoint,
): Promise<Centers> {
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
}

function savedParts(spec: RunSpec, layout: Layout) {
  return statePartsOf(spec, layout).filter(({ saved, units }) => saved && units.length > 0);
}

async function using<T>(checkpoint: Checkpoint, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } finally {
    await checkpoint.close();
  }
}
