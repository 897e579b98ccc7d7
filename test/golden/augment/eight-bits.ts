/**
 * Paddock's operations on crops, each followed by the conversion to 8 bits that Pillow and torchvision make there: what is left between this
 * and a recorded image is the arithmetic of single operations, so a wrong order or factor shows.
 */
import {
  applyJitter,
  blur,
  type CropPlan,
  type Image,
  pillowBlur,
  resizeBox,
  resizeLevels,
  solarize,
  turnGrey,
  wholeOf,
} from "@paddock/data";
import type { Limits } from "./images.js";

/** Pillow's enhancers cut the fraction off; the small term absorbs single-precision noise just below a whole number. */
export function cut(levels: Float32Array): Float32Array {
  return levels.map((level) => Math.floor(level + 1e-3));
}

export function rounded(levels: Float32Array): Float32Array {
  return levels.map((level) => Math.round(level));
}

/**
 * What of a whole pipeline may remain. Pillow also rounds between the two passes of a resize: an error of deviation 0.29, averaged by the
 * second pass. Hue in 8-bit HSV is worth up to 8 levels, which a later brightness and contrast of 1.4 each may double.
 */
export function pipelineLimits({ jitter }: Pick<CropPlan, "jitter">): Limits {
  return jitter.length === 0 ? { max: 2, mean: 0.2 } : { max: 16, mean: 1.5 };
}

/**
 * Mean difference of a pipeline that never rounds: Pillow rounds the resize, cuts half a level off in each jitter operation and turns the hue by
 * up to a 255th too little; a later brightness enlarges what came before. Contrast and saturation keep what all pixels have in common.
 */
export function unroundedMean({ jitter }: Pick<CropPlan, "jitter">): number {
  if (jitter.length === 0) return 0.5;
  return jitter.reduce(
    (mean, { op, factor }) =>
      mean * (op === "brightness" ? Math.max(1, factor) : 1) + (op === "hue" ? 0.8 : 0.5),
    0.3,
  );
}

/** Pillow turns the hue by whole 255ths of a turn. */
export function wholeHue({ op, factor }: CropPlan["jitter"][number]): number {
  return op === "hue" ? Math.trunc(factor * 255) / 255 : factor;
}

/** The part of the image that a crop shows: [size, size, 3]. */
export function cutOut(image: Image, { box, flip }: CropPlan, size: number): Float32Array {
  const levels = new Float32Array(size * size * image.channels);
  resizeBox(image, box, wholeOf(size), wholeOf(size), flip, levels);
  return rounded(levels);
}

export function resized(levels: Float32Array, from: number, to: number): Float32Array {
  const out = new Float32Array(to * to * 3);
  resizeLevels(levels, { height: from, width: from }, 3, to, true, out);
  return rounded(out);
}

export function recoloredLevels(
  levels: Float32Array,
  { jitter, grayscale }: Pick<CropPlan, "jitter" | "grayscale">,
): Float32Array {
  let current = levels;
  for (const step of jitter) {
    applyJitter(current, current.length, 3, [{ ...step, factor: wholeHue(step) }]);
    current = cut(current);
  }
  if (grayscale) turnGrey(current, current.length, 3);
  return rounded(current);
}

/** Jitter, grey, blur, solarise. Changes `levels`. */
export function distorted(levels: Float32Array, size: number, plan: CropPlan): Float32Array {
  const current = recoloredLevels(levels, plan);
  if (plan.blur) {
    const blurWith = plan.blur.kernel === "pillow" ? pillowBlur : blur;
    blurWith(current, { height: size, width: size }, 3, plan.blur.sigma);
  }
  const blurred = rounded(current);
  if (plan.solarize) solarize(blurred, blurred.length);
  return blurred;
}
