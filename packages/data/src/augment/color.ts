/**
 * Colour operations on a crop, in place: levels in [0, 255], [H, W, channels] from element 0 on. Formulas of Pillow and torchvision
 * without their rounding to 8 bits. `elements` = H * W * channels.
 */
import { type Channels, luma } from "../image.js";
import type { Jitter, JitterOp } from "./plan.js";

/** Colour jitter. Saturation and hue leave grey images alone. */
export function applyJitter(
  levels: Float32Array,
  elements: number,
  channels: Channels,
  jitter: Jitter,
): void {
  for (const { op, factor } of jitter) apply[op](levels, elements, channels, factor);
}

const apply: Readonly<
  Record<
    JitterOp,
    (levels: Float32Array, elements: number, channels: Channels, factor: number) => void
  >
> = { brightness, contrast, saturation, hue };

// hot:
function brightness(
  levels: Float32Array,
  elements: number,
  _channels: Channels,
  factor: number,
): void {
  for (let i = 0; i < elements; i++) levels[i] = clipLevel((levels[i] as number) * factor);
}

/** Blends with the crop's mean luma. */
function contrast(
  levels: Float32Array,
  elements: number,
  channels: Channels,
  factor: number,
): void {
  const offset = meanLuma(levels, elements, channels) * (1 - factor);
  for (let i = 0; i < elements; i++) levels[i] = clipLevel((levels[i] as number) * factor + offset);
}

// hot:
function meanLuma(levels: Float32Array, elements: number, channels: Channels): number {
  let sum = 0;
  if (channels === 1) {
    for (let i = 0; i < elements; i++) sum += levels[i] as number;
    return sum / elements;
  }
  for (let i = 0; i < elements; i += 3) sum += lumaAt(levels, i);
  return sum / (elements / 3);
}

/** Blends each pixel with its luma. */
function saturation(
  levels: Float32Array,
  elements: number,
  channels: Channels,
  factor: number,
): void {
  if (channels === 1) return;
  for (let i = 0; i < elements; i += 3) {
    const grey = lumaAt(levels, i) * (1 - factor);
    levels[i] = clipLevel((levels[i] as number) * factor + grey);
    levels[i + 1] = clipLevel((levels[i + 1] as number) * factor + grey);
    levels[i + 2] = clipLevel((levels[i + 2] as number) * factor + grey);
  }
}

/** Turns the hue of HSV by `turns`; value and saturation stay, so the largest and smallest channel keep their levels. */
function hue(levels: Float32Array, elements: number, channels: Channels, turns: number): void {
  if (channels === 1) return;
  const shift = 6 * turns + 6;
  for (let i = 0; i < elements; i += 3) {
    const r = levels[i] as number;
    const g = levels[i + 1] as number;
    const b = levels[i + 2] as number;
    const value = Math.max(r, g, b);
    const chroma = value - Math.min(r, g, b);
    if (chroma === 0) continue;
    const sector = hueSector(r, g, b, value, chroma) + shift;
    levels[i] = value - chroma * distance(sector + 5);
    levels[i + 1] = value - chroma * distance(sector + 3);
    levels[i + 2] = value - chroma * distance(sector + 1);
  }
}

/** Hue in sixths of a turn, in [-1, 5). */
function hueSector(r: number, g: number, b: number, value: number, chroma: number): number {
  if (value === r) return (g - b) / chroma;
  return value === g ? 2 + (b - r) / chroma : 4 + (r - g) / chroma;
}

/** How far a channel lies below the value, as a fraction of the chroma. */
function distance(sector: number): number {
  const k = sector % 6;
  return Math.max(0, Math.min(k, 4 - k, 1));
}

/** Every channel becomes the luma. Nothing to do for one channel. */
export function turnGrey(levels: Float32Array, elements: number, channels: Channels): void {
  if (channels === 1) return;
  for (let i = 0; i < elements; i += 3) {
    const grey = lumaAt(levels, i);
    levels[i] = grey;
    levels[i + 1] = grey;
    levels[i + 2] = grey;
  }
}

/**
 * Inverts levels of `threshold` (official: 128) and more. The reference compares 8-bit levels; half a level below is where ours would
 * round up to it.
 */
export function solarize(levels: Float32Array, elements: number, threshold = 128): void {
  const lowest = threshold - 0.5;
  for (let i = 0; i < elements; i++) {
    const level = levels[i] as number;
    if (level >= lowest) levels[i] = 255 - level;
  }
}

/** Writes (level / 255 - mean) / std per channel to `out` from element `to` on. */
export function normalize(
  levels: Float32Array,
  elements: number,
  channels: Channels,
  norm: { readonly mean: readonly number[]; readonly std: readonly number[] },
  out: Float32Array,
  to: number,
): void {
  for (let c = 0; c < channels; c++) {
    const factor = 1 / (255 * (norm.std[c] as number));
    const offset = (norm.mean[c] as number) / (norm.std[c] as number);
    for (let i = c; i < elements; i += channels) {
      out[to + i] = (levels[i] as number) * factor - offset;
    }
  }
}

function lumaAt(levels: Float32Array, i: number): number {
  return (
    luma.red * (levels[i] as number) +
    luma.green * (levels[i + 1] as number) +
    luma.blue * (levels[i + 2] as number)
  );
}

/** The nearest level that 8 bits can hold. */
export function clipLevel(level: number): number {
  return Math.max(0, Math.min(255, level));
}
