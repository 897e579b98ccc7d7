/** One logical rank's input of one step: crops of its images, and masks. */
import {
  invariant,
  PaddockError,
  type Resolution,
  type RunSpec,
  resolutionAt,
  resolutionsOf,
} from "@paddock/contract";
import { type CropSink, writeCrops } from "./augment/crops.js";
import type { Dataset } from "./datasets/dataset.js";
import { BadImageError, type Channels, type Image, withChannels } from "./image.js";
import { drawMasks } from "./masks.js";
import { positionOf, replacementId, sampleId } from "./sampler.js";

/** An image that could not be used, and was replaced. The wording of the reason is libvips' and may vary between attempts. */
export interface BadImage {
  readonly id: number;
  readonly path: string;
  readonly reason: string;
}

/**
 * Memory of a batch's crops, all of it in shared memory. Large enough for every size that the spec's steps have: the arrays are the part that one
 * batch fills, and the whole lies behind them.
 */
export interface CropBuffers {
  readonly globalCrops: Float32Array;
  readonly localCrops: Float32Array | null;
  readonly gramCrops: Float32Array | null;
}

/**
 * B images of one logical rank. Arrays lie in shared memory: posting them to a thread costs nothing. Owned by whoever asked.
 * C channels, n = crops.localCount; H, h and g the sizes of global, local and gram crops at this step (`resolutionAt`).
 */
export interface RankBatch extends CropBuffers {
  readonly rank: number;
  /** [2B, H, H, C]: the first crop of every image, then the second of every image. Normalised. */
  readonly globalCrops: Float32Array;
  /** [n * B, h, h, C]: local crop 0 of every image, then local crop 1 of every image, ...; null if n = 0. */
  readonly localCrops: Float32Array | null;
  /** [2B, g, g, C]: what the gram teacher sees of the global crops, in their order; null without such crops. */
  readonly gramCrops: Float32Array | null;
  /** Masked patches: p + i * P for patch p of P in row i of globalCrops; ascending. Empty when the iBOT loss is off. */
  readonly maskRows: Int32Array;
  /** Per masked patch: 1 / masked patches of its crop. */
  readonly maskWeights: Float32Array;
  /** The B samples used, replacements included. */
  readonly sampleIds: readonly number[];
  /** Samples that were drawn but could not be used, in order of discovery. */
  readonly badImages: readonly BadImage[];
}

/** The fields of a run spec that a batch depends on. */
export type BatchSpec = Pick<
  RunSpec,
  "seed" | "logicalRanks" | "batchPerRank" | "model" | "crops" | "masks" | "loss"
>;

/** After so many unusable images in a row the dataset, not an image, is broken. */
const maxAttempts = 64;

/**
 * The batch of logical rank `rank` at `step`: a pure function of dataset, spec, step, rank and data step. Never fails for single bad images;
 * `data-unavailable` after 64 in a row, `invalid-spec` for channel counts other than 1 and 3.
 * @param buffers memory to write the crops to, from an earlier batch of the same spec, at whatever step; new memory if absent. V8 does not see the size of
 *   shared memory and collects it late: a loop should use its buffers again.
 * @param dataStep which images, in which crops (`dataStepOf`); sizes and masks are those of `step`
 */
export async function makeRankBatch(
  dataset: Dataset,
  spec: BatchSpec,
  step: number,
  rank: number,
  buffers: CropBuffers = allocateCrops(spec),
  dataStep = step,
): Promise<RankBatch> {
  const { batchPerRank } = spec;
  const channels = channelsOf(spec);
  const sizes = resolutionAt(spec, step);
  const views = viewsOf(buffers, spec, sizes);
  const sampleIds: number[] = [];
  const badImages: BadImage[] = [];
  const loadAt = (b: number) => loadUsable(dataset, spec.seed, positionOf(spec, dataStep, rank, b));
  let next = loadAt(0);
  for (let b = 0; b < batchPerRank; b++) {
    const { id, image, bad } = await next;
    // Decoding runs on other threads: it overlaps with the crops of the image before.
    if (b + 1 < batchPerRank) next = started(loadAt(b + 1));
    sampleIds.push(id);
    badImages.push(...bad);
    const keys = { seed: spec.seed, position: positionOf(spec, dataStep, rank, b) };
    const sink: CropSink = (kind, index) => {
      const out = views[`${kind}Crops`];
      invariant(out, `no memory for ${kind} crops`);
      return { out, to: cropRow(index, b, batchPerRank) * (sizes[kind] ?? 0) ** 2 * channels };
    };
    writeCrops(withChannels(image, channels), spec, sizes, keys, sink);
  }
  return { rank, ...views, ...drawMasks(spec, step, rank), sampleIds, badImages };
}

/** Row of a crop in its array: crop-major, as the reference collates. */
export function cropRow(crop: number, image: number, batchPerRank: number): number {
  return crop * batchPerRank + image;
}

/** The channel count of the model, which must be one that images can be decoded to. */
export function channelsOf(spec: Pick<RunSpec, "model">): Channels {
  const { channels } = spec.model;
  if (channels === 1 || channels === 3) return channels;
  throw new PaddockError(
    "invalid-spec",
    `model.channels: expected 1 (grey) or 3 (RGB) for image files, received ${channels}`,
  );
}

/** Elements of a batch's arrays in the given sizes; 0 where there is no array. */
function elementsOf(spec: BatchSpec, sizes: Resolution): Record<keyof CropBuffers, number> {
  const perPixel = spec.batchPerRank * channelsOf(spec);
  return {
    globalCrops: 2 * perPixel * sizes.global ** 2,
    localCrops: spec.crops.localCount * perPixel * sizes.local ** 2,
    gramCrops: 2 * perPixel * (sizes.gram ?? 0) ** 2,
  };
}

function allocateCrops(spec: BatchSpec): CropBuffers {
  const all = resolutionsOf(spec.crops).map((sizes) => elementsOf(spec, sizes));
  const floats = (kind: keyof CropBuffers): Float32Array =>
    new Float32Array(new SharedArrayBuffer(4 * Math.max(...all.map((elements) => elements[kind]))));
  return {
    globalCrops: floats("globalCrops"),
    localCrops: spec.crops.localCount === 0 ? null : floats("localCrops"),
    gramCrops: resolutionAt(spec, 0).gram === null ? null : floats("gramCrops"),
  };
}

/** The part of the memory that a batch of these sizes fills. */
function viewsOf(buffers: CropBuffers, spec: BatchSpec, sizes: Resolution): CropBuffers {
  const elements = elementsOf(spec, sizes);
  const view = (kind: keyof CropBuffers): Float32Array | null =>
    buffers[kind] && new Float32Array(buffers[kind].buffer, 0, elements[kind]);
  return {
    globalCrops: new Float32Array(buffers.globalCrops.buffer, 0, elements.globalCrops),
    localCrops: view("localCrops"),
    gramCrops: view("gramCrops"),
  };
}

/** Loads a sample, or reports why it cannot be used. Other failures than the image's own are thrown. */
async function tryLoad(dataset: Dataset, id: number): Promise<Image | BadImage> {
  try {
    return await dataset.load(id);
  } catch (error) {
    if (!(error instanceof BadImageError)) throw error;
    return { id, path: error.path, reason: error.reason };
  }
}

/** The first usable sample of `id`, then `replacement(0)`, `replacement(1)`, ... */
export async function loadFirstUsable(
  dataset: Dataset,
  id: number,
  replacement: (attempt: number) => number,
): Promise<{ id: number; image: Image; bad: BadImage[] }> {
  const bad: BadImage[] = [];
  let candidate = id;
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    const loaded = await tryLoad(dataset, candidate);
    if ("pixels" in loaded) return { id: candidate, image: loaded, bad };
    bad.push(loaded);
    candidate = replacement(attempt);
  }
  const last = bad.at(-1);
  invariant(last, "no attempt was made");
  throw new PaddockError(
    "data-unavailable",
    `expected images that can be decoded, received ${maxAttempts} bad ones in a row, the last being ${last.path}: ${last.reason}; is the storage reachable?`,
  );
}

function loadUsable(dataset: Dataset, seed: number, position: number) {
  const { count } = dataset;
  return loadFirstUsable(dataset, sampleId(seed, count, position), (attempt) =>
    replacementId(seed, count, position, attempt),
  );
}

/** Marks a promise that is awaited later, so that its failure meanwhile does not count as unhandled. */
function started<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
