/** Images for evaluation: no randomness but the choice of a fixed subset. */
import { type RunSpec, rngOf, streams } from "@paddock/contract";
import { normalize } from "./augment/color.js";
import { resizeBox, type Window, wholeOf } from "./augment/resize.js";
import { scratchOf } from "./augment/scratch.js";
import { type BadImage, channelsOf, loadFirstUsable } from "./batch.js";
import type { Dataset } from "./datasets/dataset.js";
import { type Image, withChannels } from "./image.js";
import { permuted } from "./sampler.js";

/**
 * Ids of the images to evaluate on, ascending: all for count 0 (or count >= dataset.count), else `count` different ones, a pure
 * function of seed, dataset size and count. A larger count holds every smaller one.
 */
export function evaluationImages(
  dataset: Pick<Dataset, "count">,
  { count, seed }: { readonly count: number; readonly seed: number },
): Int32Array {
  const all = dataset.count;
  if (count === 0 || count >= all) return Int32Array.from({ length: all }, (_, id) => id);
  return Int32Array.from({ length: count }, (_, i) =>
    permuted(rngOf(seed, streams.evaluation), all, i),
  ).sort();
}

/** Images ready for the backbone. Owned by the caller; transfer the buffers to hand them to another thread. */
export interface EvaluationBatch {
  /** [n, H, H, C], H = crops.global.size, normalised. */
  readonly images: Float32Array;
  /** [n]; -1 where the dataset has no label. */
  readonly labels: Int32Array;
  /** Samples that could not be used; another one, with its own label, stands in their place. */
  readonly badImages: readonly BadImage[];
}

/**
 * The official evaluation view: shorter side resized to 256/224 of the crop size, central crop. Images whose sides both equal the crop
 * size are taken as they are (Fashion-MNIST at 28), since cutting a border off so small an image would lose content.
 */
export async function loadEvaluationBatch(
  dataset: Dataset,
  ids: ArrayLike<number>,
  spec: Pick<RunSpec, "model" | "crops">,
): Promise<EvaluationBatch> {
  const channels = channelsOf(spec);
  const { size } = spec.crops.global;
  const elements = size * size * channels;
  const images = new Float32Array(ids.length * elements);
  const labels = new Int32Array(ids.length);
  const badImages: BadImage[] = [];
  for (let i = 0; i < ids.length; i++) {
    const wanted = ids[i] as number;
    const { id, image, bad } = await loadFirstUsable(dataset, wanted, (attempt) =>
      rngOf(wanted, streams.evaluation, streams.replacement, attempt).below(dataset.count),
    );
    badImages.push(...bad);
    labels[i] = dataset.label(id) ?? -1;
    const levels = scratchOf("crop", elements);
    renderView(withChannels(image, channels), size, levels);
    normalize(levels, elements, channels, spec.crops, images, i * elements);
  }
  return { images, labels, badImages };
}

/** Writes the evaluation view of an image, levels in [0, 255], [size, size, channels]. */
export function renderView(image: Image, size: number, out: Float32Array): void {
  const { width, height } = image;
  const box = { top: 0, left: 0, width, height };
  if (width === size && height === size) {
    resizeBox(image, box, wholeOf(size), wholeOf(size), false, out);
    return;
  }
  const shorter = Math.min(width, height);
  const target = Math.round((size * 256) / 224);
  const window = (side: number): Window => {
    const total = side === shorter ? target : Math.trunc((target * side) / shorter);
    return { total, from: Math.round((total - size) / 2), size };
  };
  resizeBox(image, box, window(height), window(width), false, out);
}
