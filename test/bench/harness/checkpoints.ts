/** A made-up training state, to be saved and loaded by the product's own code. */
import { type Manifest, type ManifestFile, shardOf, type Unit } from "@paddock/contract";
import type { ExpectedState, ShardEntry, ShardFile, Wanted } from "@paddock/worker";

const kinds = ["student", "teacher", "m", "v"] as const;

export interface ExampleState {
  readonly units: readonly Unit[];
  readonly workers: number;
  readonly expected: ExpectedState;
}

/** Each unit has four vectors of so many elements. */
export function exampleState(units: number, elements: number, workers: number): ExampleState {
  const all = Array.from({ length: units }, (_, i): Unit => {
    return { name: `block.${i}`, submodule: "backbone", parameters: [], elements };
  });
  const parts = kinds.map((kind) => ({ kind, units: all }));
  return { units: all, workers, expected: { parts, units: "own" } };
}

interface Shard {
  readonly kind: string;
  readonly unit: string;
  readonly start: number;
  readonly data: Float32Array;
}

/** A worker's, on shared memory. @param fill empty: for a load */
export function shardsOf(
  { units, workers }: ExampleState,
  worker: number,
  fill: "values" | "empty" = "values",
): Shard[] {
  return kinds.flatMap((kind, k) =>
    units.map(({ name, elements }, u) => {
      const { start, end } = shardOf(elements, worker, workers);
      const data = new Float32Array(new SharedArrayBuffer(4 * (end - start)));
      if (fill === "values") for (let i = 0; i < data.length; i++) data[i] = k + u / 7 + i / 1e7;
      return { kind, unit: name, start, data };
    }),
  );
}

export function shardFileOf(
  { workers }: ExampleState,
  shards: readonly Shard[],
  of: { readonly directory: string; readonly step: number; readonly worker: number },
): ShardFile {
  const entries: ShardEntry[] = shards.map(({ kind, unit, start, data }) => {
    return { name: `${kind}/${unit}`, data, range: { start, end: start + data.length } };
  });
  if (of.worker === 0) entries.push({ name: "centers/dino", data: new Float32Array(4096).fill(1) });
  return { ...of, generation: 1, workers, entries };
}

export function wantedOf(_: ExampleState, shards: readonly Shard[]): Wanted[] {
  return shards.map(({ kind, unit, start, data }) => ({ kind, unit, start, target: data }));
}

export function manifestOf(
  { units, workers }: ExampleState,
  step: number,
  files: readonly ManifestFile[],
): Manifest {
  return {
    format: "paddock-checkpoint",
    version: 1,
    runId: "bench",
    step,
    generation: 1,
    workers,
    logicalRanks: workers,
    parameters: units.reduce((sum, { elements }) => sum + elements, 0),
    units: units.map(({ name, elements }) => ({ name, elements })),
    files,
    scaler: { scale: 1, goodSteps: 0 },
    cursor: 0,
  };
}
