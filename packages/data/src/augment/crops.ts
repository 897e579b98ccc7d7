/** Image to crops: draws the plan of each crop and carries it out. */
import { type CropsSpec, rngOf, streams } from "@paddock/contract";
import type { Image } from "../image.js";
import { blur } from "./blur.js";
import { applyJitter, normalize, solarize, turnGrey } from "./color.js";
import { type CropPlan, drawCrop, roleOf } from "./plan.js";
import { resizeBox, wholeOf } from "./resize.js";
import { scratchOf } from "./scratch.js";

/** What the crops of an image depend on beside its pixels. */
export interface CropKeys {
  readonly seed: number;
  /** Position of the image in the stream of samples. */
  readonly position: number;
}

/**
 * The crops of one image, normalised: two global [size, size, C] and `localCount` local ones. Pure: the same image, spec and keys
 * give the same bytes. The caller owns the arrays.
 */
export function makeCrops(
  image: Image,
  crops: CropsSpec,
  keys: CropKeys,
): { global: Float32Array[]; local: Float32Array[] } {
  const make = (cropIndex: number, size: number): Float32Array => {
    const out = new Float32Array(size * size * image.channels);
    writeCrop(image, crops, keys, cropIndex, out, 0);
    return out;
  };
  return {
    global: [make(0, crops.global.size), make(1, crops.global.size)],
    local: Array.from({ length: crops.localCount }, (_, i) => make(2 + i, crops.local.size)),
  };
}

/** Writes crop `cropIndex` (0 and 1 global, then local ones) to `out` from element `to` on. */
export function writeCrop(
  image: Image,
  crops: CropsSpec,
  keys: CropKeys,
  cropIndex: number,
  out: Float32Array,
  to: number,
): void {
  const rng = rngOf(keys.seed, streams.crop, keys.position, cropIndex);
  const role = roleOf(cropIndex);
  const plan = drawCrop(rng, image, role, crops);
  const { size } = role === 2 ? crops.local : crops.global;
  const levels = renderCrop(image, plan, size);
  normalize(levels, size * size * image.channels, image.channels, crops, out, to);
}

/** Carries out a plan: levels in [0, 255], [size, size, channels], in working memory that is valid until the next crop. */
export function renderCrop(image: Image, plan: CropPlan, size: number): Float32Array {
  const { channels } = image;
  const elements = size * size * channels;
  const levels = scratchOf("crop", elements);
  resizeBox(image, plan.box, wholeOf(size), wholeOf(size), plan.flip, levels);
  applyJitter(levels, elements, channels, plan.jitter);
  if (plan.grayscale) turnGrey(levels, elements, channels);
  if (plan.blurSigma !== null)
    blur(levels, { height: size, width: size }, channels, plan.blurSigma);
  if (plan.solarize) solarize(levels, elements);
  return levels;
}
