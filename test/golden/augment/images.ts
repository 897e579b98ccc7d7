/** Recorded images, and distances between images in levels of 255. */
import { readdirSync } from "node:fs";
import * as path from "node:path";
import type { Channels, Image } from "@paddock/data";
import type { Check } from "../check.js";
import { type Golden, readGolden } from "../file.js";

type Values = ArrayLike<number>;

/** A recorded [H, W, 3] tensor. */
export function imageOf(golden: Golden, tensor: string): Image {
  const [height, width, channels] = golden.shape(tensor) as [number, number, Channels];
  return { height, width, channels, pixels: golden.u8(tensor) };
}

/** The photo that a file was recorded from: in the file itself, or in one beside it. */
export function photoOf(golden: Golden): Image {
  const wanted = golden.config.photo_size_HxW as [number, number] | undefined;
  const folder = path.dirname(golden.path);
  const siblings = readdirSync(folder)
    .filter((name) => name.endsWith(".safetensors"))
    .sort()
    .map((name) => path.join(folder, name));
  for (const file of [golden.path, ...siblings]) {
    const candidate = readGolden(file);
    if (!candidate.has("inputs.photo")) continue;
    const photo = imageOf(candidate, "inputs.photo");
    const fits = !wanted || (photo.height === wanted[0] && photo.width === wanted[1]);
    if (fits) return photo;
  }
  throw new RangeError(
    `${folder}: expected a file with inputs.photo of ${wanted ?? "any size"}, found none`,
  );
}

/** [C, H, W] as [H, W, C]. */
export function channelsLast(values: Values, shape: readonly number[]): Float32Array {
  const [channels, height, width] = shape.slice(-3) as [number, number, number];
  const size = height * width;
  return Float32Array.from(
    { length: size * channels },
    (_, i) => values[(i % channels) * size + Math.floor(i / channels)] as number,
  );
}

/** Largest and mean absolute difference that are allowed. */
export interface Limits {
  readonly max: number;
  readonly mean: number;
}

/** Compares two images both by their largest and by their mean difference. */
export function compareLevels(
  check: Check,
  what: string,
  actual: Values,
  expected: Values,
  { max, mean }: Limits,
): void {
  check.close(what, actual, expected, () => max);
  check.close(`${what} (mean difference)`, [meanDistance(actual, expected)], [0], () => mean);
}

export function meanDistance(a: Values, b: Values): number {
  let sum = 0;
  for (let i = 0; i < b.length; i++) sum += Math.abs((a[i] as number) - (b[i] as number));
  return sum / b.length;
}
