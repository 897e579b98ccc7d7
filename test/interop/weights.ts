/** Weights as a run would have them, in a checkpoint of three workers; and Paddock's own features. */
import { mkdirSync, writeFileSync } from "node:fs";
import * as path from "node:path";
import {
  type Layout,
  layoutOf,
  type Manifest,
  type RunSpec,
  rngOf,
  shardOf,
  statePartsOf,
  type Unit,
} from "@paddock/contract";
import { features, initialUnit, viewUnit } from "@paddock/model";
import { loadBackbone, writeShardFile } from "@paddock/worker";
import * as tf from "@tensorflow/tfjs-core";

export type Flat = ReadonlyMap<string, Float32Array>;

const workers = 3;
const step = 7;

/** Initial weights, every parameter moved: zeros and ones would hide a swapped name, and a small LayerScale a wrong branch. */
export function movedWeights(spec: RunSpec, layout: Layout, salt: number): Flat {
  return new Map(
    layout.units.map((unit) => {
      const flat = initialUnit(spec, unit);
      for (const [i, { name, offset, elements }] of unit.parameters.entries()) {
        const rng = rngOf(spec.seed, salt, i, unit.elements);
        const isScale = name.endsWith(".gamma");
        for (let at = offset; at < offset + elements; at++) {
          flat[at] = isScale
            ? 0.5 + 0.2 * rng.normal()
            : (flat[at] as number) + 0.05 * rng.normal();
        }
        if (spec.model.maskKeyBias && name.endsWith("attn.qkv.bias")) {
          flat.fill(0, offset + elements / 3, offset + (2 * elements) / 3);
        }
      }
      return [unit.name, flat] as const;
    }),
  );
}

/** A run directory with one complete checkpoint. */
export async function writeRun(
  runDir: string,
  spec: RunSpec,
  weights: { readonly student: Flat; readonly teacher: Flat },
): Promise<void> {
  const layout = layoutOf(spec);
  const directory = path.join(runDir, "checkpoints", String(step));
  mkdirSync(directory, { recursive: true });
  writeFileSync(path.join(runDir, "spec.json"), JSON.stringify(spec));
  const files: Manifest["files"][number][] = [];
  for (let worker = 0; worker < workers; worker++) {
    const entries = statePartsOf(spec, layout).flatMap(({ kind, units }) =>
      units.map((unit) => {
        const range = shardOf(unit.elements, worker, workers);
        const whole =
          kind === "student" || kind === "teacher" ? weights[kind].get(unit.name) : undefined;
        const data =
          whole?.slice(range.start, range.end) ?? new Float32Array(range.end - range.start);
        return { name: `${kind}/${unit.name}`, data, range };
      }),
    );
    const file = await writeShardFile({ directory, step, generation: 1, worker, workers, entries });
    files.push({ ...file, worker });
  }
  const manifest: Manifest = {
    format: "paddock-checkpoint",
    version: 1,
    runId: "interop",
    step,
    generation: 1,
    workers,
    logicalRanks: spec.logicalRanks,
    parameters: layout.parameters,
    units: layout.units.map(({ name, elements }) => ({ name, elements })),
    files,
    scaler: { scale: 1, goodSteps: 0 },
    cursor: 0,
  };
  writeFileSync(path.join(directory, "manifest.json"), JSON.stringify(manifest));
}

/** The teacher's backbone as three workers load it from a file, put together again. */
export async function loadedWeights(file: string, spec: RunSpec): Promise<Flat> {
  const layout = layoutOf(spec);
  const whole = new Map(
    layout.units.map(({ name, elements }) => [name, new Float32Array(elements)]),
  );
  for (let worker = 0; worker < workers; worker++) {
    const shards = (): Record<string, Float32Array> =>
      Object.fromEntries(
        layout.units.map(({ name, elements }) => {
          const { start, end } = shardOf(elements, worker, workers);
          return [name, new Float32Array(end - start)];
        }),
      );
    const state = { student: shards(), teacher: shards() };
    await loadBackbone({
      path: file,
      sha256: null,
      spec,
      layout,
      membership: { worker, workers },
      state,
    });
    for (const { name, elements } of layout.units) {
      whole
        .get(name)
        ?.set(state.teacher[name] as Float32Array, shardOf(elements, worker, workers).start);
    }
  }
  return whole;
}

/** [1 + patches, D]: cls and patches of one image [H,W,C] after the final norm. */
export async function paddockFeatures(
  spec: RunSpec,
  weights: Flat,
  image: Float32Array,
): Promise<Float32Array> {
  const layout = layoutOf(spec);
  const unitOf = (name: string): Unit => layout.units.find((unit) => unit.name === name) as Unit;
  const { cls, patches } = await features({
    spec,
    layout,
    gather: async (name) => {
      const flat = tf.tensor1d(weights.get(name) as Float32Array);
      const tensors = viewUnit(unitOf(name), flat);
      flat.dispose();
      return { tensors, release: () => tf.dispose(Object.values(tensors)) };
    },
    images: image,
    count: 1,
    size: spec.crops.global.size,
  });
  const [a, b] = [cls.dataSync() as Float32Array, patches.dataSync() as Float32Array];
  const all = new Float32Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  tf.dispose([cls, patches]);
  return all;
}

/** Normalised pixels [H,W,C] of a random image, and the same as [1,C,H,W]. */
export function randomImage(
  size: number,
  channels: number,
): { readonly rows: Float32Array; readonly planes: Float32Array } {
  const rng = rngOf(5, size, channels);
  const rows = Float32Array.from({ length: size * size * channels }, () => rng.normal());
  const planes = new Float32Array(rows.length);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < channels; c++)
      planes[c * size * size + i] = rows[i * channels + c] as number;
  }
  return { rows, planes };
}
