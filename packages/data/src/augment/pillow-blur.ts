/**
 * Pillow's GaussianBlur, which DINO uses: three box filters per axis with fractional ends (Gwosdek et al. 2011, "Theoretical foundations
 * of Gaussian convolution by extended box filtering"), the edge pixel repeated before each of them. In Pillow's integers and with its
 * rounding after each filter, because that is what small radii do: almost nothing, while six unrounded filters add up to two levels.
 */
import type { Channels } from "../image.js";
import { scratchOf } from "./scratch.js";

const passes = 3;

/** Weights of a box filter in units of 2^-24: `inner` on the pixels within `radius`, `outer` on the two next to them. They sum to at most 1. */
interface Box {
  readonly radius: number;
  readonly inner: number;
  readonly outer: number;
}

const one = 2 ** 24;

/** The box whose threefold application has the variance of a Gaussian of that deviation. */
export function boxOf(sigma: number): Box {
  const variance = Math.fround((sigma * sigma) / passes);
  const radius = Math.floor((Math.sqrt(12 * variance + 1) - 1) / 2);
  const next = radius + 1;
  const fraction =
    ((2 * radius + 1) * (radius * next - 3 * variance)) / (6 * (variance - next * next));
  const inner = Math.floor(Math.fround(one / Math.fround(2 * Math.fround(radius + fraction) + 1)));
  return { radius, inner, outer: Math.floor((one - (2 * radius + 1) * inner) / 2) };
}

/** Blurs [height, width, channels] levels in place; the result is whole numbers. Cost: 6 (2 radius + 3) additions per value; the radius is 1 up to sigma 2.4. */
export function pillowBlur(
  levels: Float32Array,
  { height, width }: { readonly height: number; readonly width: number },
  channels: Channels,
  sigma: number,
): void {
  const box = boxOf(sigma);
  const row = width * channels;
  const scratch = scratchOf("blur", height * row + (width + 2 * (box.radius + 1)) * channels);
  for (let y = 0; y < height; y++) {
    for (let pass = 0; pass < passes; pass++) {
      filterRow(levels, y * row, row, channels, box, scratch);
    }
  }
  for (let pass = 0; pass < passes; pass++) {
    scratch.set(levels.subarray(0, height * row));
    for (let y = 0; y < height; y++) filterColumn(scratch, y, height, row, box, levels);
  }
}

// hot:
function filterRow(
  levels: Float32Array,
  from: number,
  row: number,
  channels: number,
  { radius, inner, outer }: Box,
  padded: Float32Array,
): void {
  const margin = (radius + 1) * channels;
  for (let i = 0; i < row; i++) padded[margin + i] = levels[from + i] as number;
  for (let i = 0; i < margin; i++) {
    padded[i] = levels[from + (i % channels)] as number;
    padded[margin + row + i] = levels[from + row - channels + (i % channels)] as number;
  }
  const span = 2 * margin;
  for (let i = 0; i < row; i++) {
    let sum = 0;
    for (let p = i + channels; p < i + span; p += channels) sum += padded[p] as number;
    const ends = (padded[i] as number) + (padded[i + span] as number);
    levels[from + i] = Math.round((inner * sum + outer * ends) / one);
  }
}

// hot:
function filterColumn(
  source: Float32Array,
  y: number,
  height: number,
  row: number,
  { radius, inner, outer }: Box,
  out: Float32Array,
): void {
  const rowAt = (dy: number): number => Math.min(Math.max(y + dy, 0), height - 1) * row;
  const to = y * row;
  const above = rowAt(-radius - 1);
  const below = rowAt(radius + 1);
  out.fill(0, to, to + row);
  for (let dy = -radius; dy <= radius; dy++) {
    const at = rowAt(dy);
    for (let i = 0; i < row; i++)
      out[to + i] = (out[to + i] as number) + (source[at + i] as number);
  }
  for (let i = 0; i < row; i++) {
    const ends = (source[above + i] as number) + (source[below + i] as number);
    out[to + i] = Math.round((inner * (out[to + i] as number) + outer * ends) / one);
  }
}
