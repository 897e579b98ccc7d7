/** Checkpoints of made-up values, for tests. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Layout, type Manifest, shardOf } from "@paddock/contract";
import type { Wanted } from "./file-content.js";
import type { ExpectedState } from "./reader.js";
import { type SaveOptions, type ShardEntry, type WrittenFile, writeShardFile } from "./writer.js";

export const kinds = ["student", "m", "v", "teacher"] as const;

/** Units of the given sizes, as far as a checkpoint cares. */
export function layoutOfSizes(sizes: readonly number[]): Layout {
  const units = sizes.map((elements, i) => {
    const submodule = "backbone" as const;
    return { name: `unit.${i}`, submodule, parameters: [], elements };
  });
  const parameters = sizes.reduce((sum, size) => sum + size, 0);
  return { units, parameters, normGroups: [] };
}

export function expected(of: Layout): ExpectedState {
  return { parts: kinds.map((kind) => ({ kind, units: of.units })), units: "own" };
}

/** The value of an element: different for every kind, unit and index. */
export function valueAt(kind: string, unit: number, index: number): number {
  return Math.fround((kinds as readonly string[]).indexOf(kind) * 1e6 + unit * 1e4 + index + 0.25);
}

/** One worker's part, on shared memory as in a run. */
export function entriesOf(of: Layout, worker: number, workers: number): ShardEntry[] {
  const entries: ShardEntry[] = kinds.flatMap((kind) =>
    of.units.map((unit, u) => {
      const range = shardOf(unit.elements, worker, workers);
      const data = new Float32Array(new SharedArrayBuffer(4 * (range.end - range.start)));
      for (let i = 0; i < data.length; i++) data[i] = valueAt(kind, u, range.start + i);
      return { name: `${kind}/${unit.name}`, data, range };
    }),
  );
  if (worker === 0) entries.push({ name: "centers/dino", data: Float32Array.of(1, 2, 3) });
  return entries;
}

/** A checkpoint that `workers` workers wrote. */
export async function save(
  directory: string,
  workers: number,
  of: Layout,
  step = 7,
  options: SaveOptions = {},
): Promise<Manifest> {
  const files: (WrittenFile & { worker: number })[] = [];
  for (let worker = 0; worker < workers; worker++) {
    const entries = entriesOf(of, worker, workers);
    const shard = { directory, step, generation: 2, worker, workers, entries };
    files.push({ ...(await writeShardFile(shard, options)), worker });
  }
  const manifest: Manifest = {
    format: "paddock-checkpoint",
    version: 1,
    runId: "r",
    step,
    generation: 2,
    workers,
    logicalRanks: 4,
    parameters: of.parameters,
    units: of.units.map(({ name, elements }) => ({ name, elements })),
    files,
    scaler: { scale: 1, goodSteps: 0 },
    cursor: 0,
  };
  writeFileSync(join(directory, "manifest.json"), JSON.stringify(manifest));
  return manifest;
}

/** All that a worker loads, into new shared memory. */
export function wantedOf(of: Layout, worker: number, workers: number): Wanted[] {
  return kinds.flatMap((kind) =>
    of.units.map(({ name, elements }) => {
      const { start, end } = shardOf(elements, worker, workers);
      const target = new Float32Array(new SharedArrayBuffer(4 * (end - start)));
      return { kind, unit: name, start, target };
    }),
  );
}
