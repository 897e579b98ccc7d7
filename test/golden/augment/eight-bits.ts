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
  solarize,
  turnGrey,
  wholeOf,
} from "@paddock/data";
import type { Limits } from "./images.js";

/** Pillow's enhancers cut the fraction off; the small term absorbs single-precision noise just below a whole number. */
export function cut(levels: Float32Array): Float32Array {
  return levels.map((level) => Math.floor(level + 1e-3));
}

/** One operation of the jitter on 8-bit levels, as Pillow does it: factors in single precision, hue by whole 255ths of a turn. */
export function jittered(
  levels: Float32Array,
  { op, factor }: CropPlan["jitter"][number],
): Float32Array {
  const current = levels.slice();
  const pillows = op === "hue" ? Math.trunc(factor * 255) / 255 : Math.fround(factor);
  applyJitter(current, current.length, 3, [{ op, factor: pillows }]);
  // A product alone is the same in both.
  return op === "brightness" ? current.map(Math.floor) : cut(current);
}

function rounded(levels: Float32Array): Float32Array {
  return levels.map((level) => Math.round(level));
}

/**
 * What of a whole pipeline may remain. Without jitter a rounding that falls the other way here and there, which the blur's own rounding may spread.
 * Hue in 8-bit HSV is worth up to 8 levels, which a later brightness and contrast of 1.4 each may double.
 */
export function pipelineLimits({ jitter }: Pick<CropPlan, "jitter">): Limits {
  return jitter.length === 0 ? { max: 1, mean: 0.05 } : { max: 16, mean: 1.5 };
}

/**
 * Mean difference of a pipeline that never rounds: Pillow rounds the resize, cuts half a level off in each jitter operation, rounds the mean luma
 * of contrast, and turns the hue by up to a 255th too little; later factors above 1 enlarge what came before.
 */
export function unroundedMean({ jitter }: Pick<CropPlan, "jitter">): number {
  if (jitter.length === 0) return 0.5;
  const own = { brightness: 0.5, contrast: 0.6, saturation: 0.5, hue: 2 }; // hue: the README's figure
  return jitter.reduce(
    (mean, { op, factor }) => mean * (op === "hue" ? 1 : Math.max(1, factor)) + own[op],
    0.3,
  );
}

/** The part of the image that a crop shows, [size, size, 3]: resized along rows, rounded, resized along columns, rounded. */
export function cutOut(
  image: Image,
  { box, flip }: Pick<CropPlan, "box" | "flip">,
  size: number,
): Float32Array {
  const { height } = box;
  const narrow = new Float32Array(height * size * 3);
  resizeBox(image, box, wholeOf(height), wholeOf(size), flip, narrow);
  const between = imageOf(narrow, height, size);
  const out = new Float32Array(size * size * 3);
  const whole = { top: 0, left: 0, height, width: size };
  resizeBox(between, whole, wholeOf(size), wholeOf(size), false, out);
  return rounded(out);
}

/** A square crop in another size. */
export function resized(levels: Float32Array, from: number, to: number): Float32Array {
  const whole = { top: 0, left: 0, height: from, width: from };
  return cutOut(imageOf(levels, from, from), { box: whole, flip: false }, to);
}

function imageOf(levels: Float32Array, height: number, width: number): Image {
  return { height, width, channels: 3, pixels: Uint8Array.from(rounded(levels)) };
}

function recoloredLevels(
  levels: Float32Array,
  { jitter, grayscale }: Pick<CropPlan, "jitter" | "grayscale">,
): Float32Array {
  let current = levels;
  for (const step of jitter) current = jittered(current, step);
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
