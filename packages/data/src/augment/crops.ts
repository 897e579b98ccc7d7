/** Image to crops: draws the plan of each crop and carries it out. */
import {
  type ColorSpec,
  type CropsSpec,
  type Resolution,
  type RunSpec,
  resolutionsOf,
  rngOf,
  streams,
} from "@paddock/contract";
import type { Channels, Image } from "../image.js";
import { blur } from "./blur.js";
import { applyJitter, normalize, solarize, turnGrey } from "./color.js";
import { pillowBlur } from "./pillow-blur.js";
import {
  type CropPlan,
  type Distortion,
  drawColor,
  drawCrop,
  drawDistortion,
  drawOffset,
  type Geometry,
} from "./plan.js";
import { resizeBox, resizeLevels, wholeOf } from "./resize.js";
import { type Purpose, scratchOf } from "./scratch.js";

/** What the crops of an image depend on beside its pixels. */
export interface CropKeys {
  readonly seed: number;
  /** Position of the image in the stream of samples. */
  readonly position: number;
}

/** Where a crop goes: to `out` from element `to` on. Crops are numbered within their kind. */
export type CropSink = (
  kind: "global" | "local" | "gram",
  index: number,
) => { readonly out: Float32Array; readonly to: number };

/** The fields of a run spec that crops depend on. */
type CropMaking = Pick<RunSpec, "crops" | "model">;

/**
 * The crops of one image, normalised: two global [size, size, C], `localCount` local ones, and two for the gram teacher or none. Pure: the
 * same image, spec, sizes and keys give the same bytes. The caller owns the arrays.
 */
export function makeCrops(
  image: Image,
  spec: CropMaking,
  keys: CropKeys,
  sizes: Resolution = resolutionsOf(spec.crops)[0] as Resolution,
): Record<"global" | "local" | "gram", Float32Array[]> {
  const made = { global: [], local: [], gram: [] } as Record<string, Float32Array[]>;
  writeCrops(image, spec, sizes, keys, (kind, index) => {
    const out = new Float32Array((sizes[kind] ?? 0) ** 2 * image.channels);
    (made[kind] as Float32Array[])[index] = out;
    return { out, to: 0 };
  });
  return made as ReturnType<typeof makeCrops>;
}

/** Writes all crops of an image. */
export function writeCrops(
  image: Image,
  spec: CropMaking,
  sizes: Resolution,
  keys: CropKeys,
  sink: CropSink,
): void {
  const { crops } = spec;
  const coloured = crops.shareColorJitter ? withSharedColor(image, crops.color, keys) : image;
  for (const role of [0, 1] as const) {
    const plan = drawCrop(rngOfCrop(keys, role), image, role, crops);
    const views = renderGlobal(coloured, plan, sizes, crops);
    finish(views.global, sizes.global, image.channels, crops, sink("global", role));
    if (sizes.gram !== null && views.gram) {
      finish(views.gram, sizes.gram, image.channels, crops, sink("gram", role));
    }
    if (crops.localInGlobal) writeInner(views, image.channels, spec, sizes, keys, role, sink);
  }
  for (let i = 0; !crops.localInGlobal && i < crops.localCount; i++) {
    const plan = drawCrop(rngOfCrop(keys, 2 + i), image, 2, crops);
    const levels = renderCrop(coloured, plan, sizes.local);
    finish(levels, sizes.local, image.channels, crops, sink("local", i));
  }
}

/** The draws of one crop: 0 and 1 are the global crops, the rest local. */
function rngOfCrop({ seed, position }: CropKeys, cropIndex: number) {
  return rngOf(seed, streams.crop, position, cropIndex);
}

function finish(
  levels: Float32Array,
  size: number,
  channels: Channels,
  crops: CropsSpec,
  { out, to }: ReturnType<CropSink>,
): void {
  normalize(levels, size * size * channels, channels, crops, out, to);
}

/** Carries out a plan: levels in [0, 255], [size, size, channels], in working memory that is valid until the next crop. */
export function renderCrop(image: Image, plan: CropPlan, size: number): Float32Array {
  const levels = scratchOf("crop", size * size * image.channels);
  cutOut(image, plan, size, levels);
  distort(levels, size, image.channels, plan);
  return levels;
}

/** A global crop in its different forms: levels in working memory that is valid until the next global crop. */
interface GlobalViews {
  /** [baseSize, baseSize, channels], the part of the image before its colours change. Undefined content where nothing needs it. */
  readonly base: Float32Array;
  /** The larger of the sizes of global and gram crops. */
  readonly baseSize: number;
  /** [sizes.global, sizes.global, channels] */
  readonly global: Float32Array;
  /** [sizes.gram, sizes.gram, channels]; null without gram crops. */
  readonly gram: Float32Array | null;
}

/**
 * A global crop and the gram teacher's copy of it. Undistorted copies: both are resized from the same cut, and the global one is
 * distorted at its own size. Else the cut is distorted once and then resized to both sizes, without clipping (dinov3/data/augmentations.py).
 */
export function renderGlobal(
  image: Image,
  plan: CropPlan,
  sizes: Pick<Resolution, "global" | "gram">,
  crops: Pick<CropsSpec, "gramUndistorted" | "localInGlobal">,
): GlobalViews {
  const { channels } = image;
  const { global: size, gram: gramSize } = sizes;
  const baseSize = Math.max(size, gramSize ?? 0);
  const base = scratchOf("base", baseSize * baseSize * channels);
  if (gramSize === null && !crops.localInGlobal) {
    return { base, baseSize, global: renderCrop(image, plan, size), gram: null };
  }
  cutOut(image, plan, baseSize, base);
  if (gramSize === null || crops.gramUndistorted) {
    const resized = (purpose: Purpose, to: number) =>
      resizedTo(purpose, base, baseSize, to, channels, true);
    const global = resized("crop", size);
    distort(global, size, channels, plan);
    return { base, baseSize, global, gram: gramSize === null ? null : resized("gram", gramSize) };
  }
  const distorted = resizedTo("distorted", base, baseSize, baseSize, channels, true);
  distort(distorted, baseSize, channels, plan);
  const resized = (purpose: Purpose, to: number) =>
    resizedTo(purpose, distorted, baseSize, to, channels, false);
  return { base, baseSize, global: resized("crop", size), gram: resized("gram", gramSize) };
}

/** A copy of a square in another size, or in its own. */
function resizedTo(
  purpose: Purpose,
  source: Float32Array,
  from: number,
  to: number,
  channels: Channels,
  clip: boolean,
): Float32Array {
  const out = scratchOf(purpose, to * to * channels);
  if (from === to) out.set(source.subarray(0, to * to * channels));
  else resizeLevels(source, { height: from, width: from }, channels, to, clip, out);
  return out;
}

/** Half of the local crops, cut out of one global crop: the whole cut is distorted anew for each, as the reference does. */
function writeInner(
  { base, baseSize }: GlobalViews,
  channels: Channels,
  { crops, model }: CropMaking,
  sizes: Resolution,
  keys: CropKeys,
  role: 0 | 1,
  sink: CropSink,
): void {
  const half = crops.localCount / 2;
  for (let i = role * half; i < (role + 1) * half; i++) {
    const rng = rngOfCrop(keys, 2 + i);
    const levels = resizedTo("crop", base, baseSize, baseSize, channels, true);
    distort(levels, baseSize, channels, drawDistortion(rng, 2, crops));
    const { top, left } = drawOffset(rng, sizes, model.patchSize);
    const row = sizes.local * channels;
    for (let y = 0; y < sizes.local; y++) {
      const from = ((top + y) * baseSize + left) * channels;
      levels.copyWithin(y * row, from, from + row);
    }
    finish(levels, sizes.local, channels, crops, sink("local", i));
  }
}

function cutOut(image: Image, { box, flip }: Geometry, size: number, out: Float32Array): void {
  resizeBox(image, box, wholeOf(size), wholeOf(size), flip, out);
}

/** Changes the colours of [size, size, channels] levels in place. */
function distort(
  levels: Float32Array,
  size: number,
  channels: Channels,
  { jitter, grayscale, blur: blurring, solarize: isSolarized }: Distortion,
): void {
  const elements = size * size * channels;
  applyJitter(levels, elements, channels, jitter);
  if (grayscale) turnGrey(levels, elements, channels);
  if (blurring) {
    const blurWith = blurring.kernel === "pillow" ? pillowBlur : blur;
    blurWith(levels, { height: size, width: size }, channels, blurring.sigma);
  }
  if (isSolarized) solarize(levels, elements);
}

/**
 * The image after the jitter and grey that its crops share, rounded to 8 bits as the reference's is. Takes four bytes of memory per
 * value meanwhile.
 */
function withSharedColor(image: Image, color: ColorSpec, { seed, position }: CropKeys): Image {
  return recolored(image, drawColor(rngOf(seed, streams.sharedColor, position), color));
}

/** The image after jitter and grey, in 8 bits. */
export function recolored(
  image: Image,
  { jitter, grayscale }: Pick<Distortion, "jitter" | "grayscale">,
): Image {
  if (jitter.length === 0 && !grayscale) return image;
  const levels = Float32Array.from(image.pixels);
  applyJitter(levels, levels.length, image.channels, jitter);
  if (grayscale) turnGrey(levels, levels.length, image.channels);
  return { ...image, pixels: new Uint8Array(Uint8ClampedArray.from(levels).buffer) };
}
