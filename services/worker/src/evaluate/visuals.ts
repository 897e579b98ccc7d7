/** Pictures for the report: PCA-to-RGB of the teacher's patch features and attention maps of its last block. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type RunSpec, rngOf, streams } from "@paddock/contract";
import { evaluationImages, loadEvaluationBatch } from "@paddock/data";
import type { EngineHost } from "../engine/engine-host.js";
import type { Evaluator } from "./evaluator.js";
import { principalComponents } from "./pca.js";

const pictures = 8;

interface Picture {
  readonly width: number;
  readonly height: number;
  /** base64 of 8-bit values, row by row. */
  readonly data: string;
}

/** Writes `visuals.json` in the run directory: source, PCA and one attention map per head for some held-out images. */
export async function writeVisuals(options: {
  readonly spec: RunSpec;
  readonly runDir: string;
  readonly engine: EngineHost;
  readonly evaluator: Evaluator;
}): Promise<void> {
  const { spec, runDir, engine, evaluator } = options;
  const dataset = await evaluator.validation();
  const ids = evaluationImages(dataset, { count: pictures, seed: spec.seed });
  const { images, labels } = await loadEvaluationBatch(dataset, ids, spec);
  const count = ids.length;
  const { patches, attention, heads, positions } = await engine.call("inspect", {
    step: spec.steps,
    images,
    count,
  });
  const width = patches.length / (count * positions);
  const side = Math.round(Math.sqrt(positions));
  const colors = toBytes(
    principalComponents(patches, width, 3, rngOf(spec.seed, streams.evaluation, 1)),
    3,
  );
  const { size } = spec.crops.global;
  const channels = spec.model.channels;
  const entries = Array.from(ids, (_, i) => {
    const pixels = images.subarray(i * size * size * channels, (i + 1) * size * size * channels);
    const maps = Array.from({ length: heads }, (_unused, head) => {
      const start = (i * heads + head) * positions;
      return picture(side, toBytes(attention.slice(start, start + positions), 1));
    });
    const label = labels[i] as number;
    return {
      label: dataset.classes?.[label] ?? String(label),
      source: { ...picture(size, unnormalise(pixels, spec)), channels },
      pca: picture(side, colors.subarray(i * positions * 3, (i + 1) * positions * 3)),
      attention: maps,
    };
  });
  await writeFile(join(runDir, "visuals.json"), JSON.stringify({ images: entries }));
}

function picture(side: number, bytes: Uint8Array): Picture {
  return { width: side, height: side, data: Buffer.from(bytes).toString("base64") };
}

/** Stretches each of `channels` interleaved channels to 0..255. */
function toBytes(values: Float32Array, channels: number): Uint8Array {
  const out = new Uint8Array(values.length);
  for (let c = 0; c < channels; c++) {
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    for (let i = c; i < values.length; i += channels) {
      low = Math.min(low, values[i] as number);
      high = Math.max(high, values[i] as number);
    }
    const scale = high > low ? 255 / (high - low) : 0;
    for (let i = c; i < values.length; i += channels) {
      out[i] = Math.round(((values[i] as number) - low) * scale);
    }
  }
  return out;
}

function unnormalise(pixels: Float32Array, spec: RunSpec): Uint8Array {
  const { mean, std } = spec.crops;
  const channels = spec.model.channels;
  return Uint8Array.from(pixels, (value, i) => {
    const c = i % channels;
    const unit = value * (std[c] as number) + (mean[c] as number);
    return Math.round(255 * Math.min(1, Math.max(0, unit)));
  });
}
