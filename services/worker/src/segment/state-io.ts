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
import { isS3 } from "@paddock/service-kit/checkpoint-store";
import type { Wanted } from "../checkpoint/file-content.js";
import type { Loaded } from "../checkpoint/load.js";
import type { ExpectedState } from "../checkpoint/reader.js";
import type { LoadRequest } from "../checkpoint/thread-calls.js";
import type { ShardEntry, ShardFile } from "../checkpoint/writer.js";
import type { Membership, ShardState } from "../engine/calls.js";
import { loadBackbone } from "../weights/load-backbone.js";
import { keptShards, type Shards } from "./shards.js";

interface Saved {
  readonly directory: string;
  readonly step: number;
  readonly membership: Membership;
  readonly layout: Layout;
  readonly state: ShardState;
  /** Worker 0 saves the centres, the others pass null. */
  readonly centers: Centers | null;
  readonly spec: RunSpec;
  /** The shards are another worker's, and so is its membership. */
  readonly isReplica?: boolean;
}

/** This worker's file: "<kind>/<unit>" for every unit, and "centers/<name>" on worker 0. */
export function shardFileOf(saved: Saved): ShardFile {
  const { directory, step, membership, layout, state, centers, spec, isReplica = false } = saved;
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
  return { directory, step, generation, worker, workers, entries, isReplica };
}

/** Fills shards from a checkpoint: `loadCheckpoint`, wherever that runs. */
export type Load = (request: LoadRequest) => Promise<Loaded>;

export interface CheckpointSource {
  readonly directory: string;
  /** SHA-256 of its manifest.json, in lower-case hex; empty: any. */
  readonly sha256: string;
}

/** Fills all shards that are kept here from the run's own checkpoint, in one pass over its files; returns the centres. */
export async function loadState(
  shards: Shards,
  source: CheckpointSource,
  load: Load,
): Promise<Centers> {
  const { layout, spec } = shards;
  const parts = savedParts(spec, layout);
  const centers = await loadParts(shards, source, parts, load);
  await loadDistillationTeacher(shards, load);
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
export async function loadInitial(shards: Shards, load: Load): Promise<Initial> {
  await loadDistillationTeacher(shards, load);
  const initial = await loadWeights(shards, load);
  const { gram } = shards.spec.loss;
  if (gram?.teacher !== "frozen") return initial;
  if (gram.checkpoint !== null) {
    const source = { directory: gram.checkpoint, sha256: gram.sha256 ?? "" };
    await loadTeacher(shards, source, ["frozen"], load);
  } else {
    for (const { state } of keptShards(shards)) {
      for (const [unit, shard] of Object.entries(state.frozen)) {
        if (!initial.drawn.includes(unit)) shard.set(state.teacher[unit] as Float32Array);
      }
    }
  }
  return initial;
}

async function loadWeights(shards: Shards, load: Load): Promise<Initial> {
  const { spec, layout } = shards;
  const { init } = spec;
  const { units } = layout;
  if (!init) return { centers: null, drawn: units.map(({ name }) => name) };
  const source = { directory: init.checkpoint, sha256: init.sha256 ?? "" };
  if (init.load === "resume") {
    // The run that goes on may have had no gram teacher: then this one's starts from the EMA teacher.
    const own = savedParts(spec, layout).filter(({ kind }) => kind !== "frozen");
    return { centers: await loadParts(shards, source, own, load), drawn: [] };
  }
  if (init.load === "teacher") {
    await loadTeacher(shards, source, ["student", "teacher"], load);
    return { centers: null, drawn: [] };
  }
  const [heads, backbone] = [units.filter(isHead), units.filter((unit) => !isHead(unit))];
  if (isS3(source.directory) || existsSync(join(source.directory, "manifest.json"))) {
    await loadTeacher(shards, source, ["student", "teacher"], load, backbone);
  } else {
    for (const kept of keptShards(shards)) {
      await loadBackbone({ ...kept, path: source.directory, sha256: init.sha256 });
    }
  }
  return { centers: null, drawn: heads.map(({ name }) => name) };
}

function isHead({ submodule }: Unit): boolean {
  return submodule !== "backbone";
}

async function loadParts(
  shards: Shards,
  { directory, sha256 }: CheckpointSource,
  parts: ExpectedState["parts"],
  load: Load,
): Promise<Centers> {
  const wanted = parts.flatMap(({ kind, units }) => wantedOf(shards, units, kind, kind));
  const expected = { parts, units: "own", sha256: sha256 || null } as const;
  const { extras } = await load({ directory, expected, wanted });
  return centersOf(directory, shards.spec, extras);
}

/** A checkpoint's teacher into some kinds of state: all units of these, or some. */
async function loadTeacher(
  shards: Shards,
  { directory, sha256 }: CheckpointSource,
  kinds: readonly StateKind[],
  load: Load,
  some?: readonly Unit[],
): Promise<void> {
  const part = statePartsOf(shards.spec, shards.layout).find(({ kind }) => kinds.includes(kind));
  const units = some ?? part?.units ?? [];
  const parts = [{ kind: "teacher" as const, units }];
  const wanted = kinds.flatMap((kind) => wantedOf(shards, units, "teacher", kind));
  await load({ directory, expected: { parts, units: "part", sha256: sha256 || null }, wanted });
}

async function loadDistillationTeacher(shards: Shards, load: Load): Promise<void> {
  const { distillation } = shards.spec;
  if (!distillation) return;
  const source = { directory: distillation.checkpoint, sha256: distillation.sha256 ?? "" };
  await loadTeacher(shards, source, ["frozen"], load);
}

/** What of a checkpoint's `from` goes where in the kept shards' `to`. */
function wantedOf(
  shards: Shards,
  units: readonly Unit[],
  from: StateKind,
  to: StateKind,
): Wanted[] {
  return keptShards(shards).flatMap(({ membership, state }) =>
    units.map((unit) => {
      const { start } = shardOf(unit.elements, membership.worker, membership.workers);
      const target = state[to][unit.name];
      invariant(target, `the state has no ${to}/${unit.name}`);
      return { kind: from, unit: unit.name, start, target };
    }),
  );
}

function centersOf(directory: string, spec: RunSpec, extras: Loaded["extras"]): Centers {
  const centers: Record<string, Float32Array | null> = {};
  for (const [name, initial] of Object.entries(initialCenters(spec))) {
    // A pending mean is null before the first step, so only a centre can be missing.
    centers[name] = extras.get(`centers/${name}`) ?? null;
    if (initial && centers[name]?.length !== initial.length) {
      throw new PaddockError(
        "checkpoint-corrupt",
        `${directory}: expected centers/${name} with ${initial.length} values, received ${centers[name]?.length ?? 0}`,
      );
    }
  }
  return centers as unknown as Centers;
}

/** What a checkpoint of the run holds. */
function savedParts(spec: RunSpec, layout: Layout) {
  return statePartsOf(spec, layout).filter(({ saved, units }) => saved && units.length > 0);
}
