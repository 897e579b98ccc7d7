/** Gaussian blur of a crop: torchvision's, 9 taps per axis, reflected at the edges. */
import type { Channels } from "../image.js";
import { scratchOf } from "./scratch.js";

const radius = 4;

/** Weights of the 9 taps from the centre outward: [w0, w1, .., w4] with w0 + 2 (w1 + .. + w4) = 1. */
export function gaussianTaps(sigma: number): [number, number, number, number, number] {
  const at = (x: number): number => Math.exp(-0.5 * (x / sigma) ** 2);
  const raw = [1, at(1), at(2), at(3), at(4)] as const;
  const sum = raw[0] + 2 * (raw[1] + raw[2] + raw[3] + raw[4]);
  return [raw[0] / sum, raw[1] / sum, raw[2] / sum, raw[3] / sum, raw[4] / sum];
}

/**
 * Index inside [0, size) that `index` falls on when the line is mirrored at its first and last element without repeating them. For lines
 * shorter than the kernel, which torchvision refuses, the mirroring repeats.
 */
export function reflected(index: number, size: number): number {
  if (size === 1) return 0;
  const period = 2 * (size - 1);
  const k = ((index % period) + period) % period;
  return k < size ? k : period - k;
}

/** Blurs [height, width, channels] levels in place. Cost: 10 multiplications per value. */
export function blur(
  levels: Float32Array,
  { height, width }: { readonly height: number; readonly width: number },
  channels: Channels,
  sigma: number,
): void {
  const taps = gaussianTaps(sigma);
  const rowElements = width * channels;
  const paddedRow = (width + 2 * radius) * channels;
  const scratch = scratchOf("blur", height * rowElements + paddedRow);
  const padded = scratch.subarray(height * rowElements);
  for (let y = 0; y < height; y++) {
    padRow(levels, y * rowElements, width, channels, padded);
    blurRow(padded, channels, taps, rowElements, scratch, y * rowElements);
  }
  for (let y = 0; y < height; y++) {
    blurColumn(scratch, y, height, rowElements, taps, levels);
  }
}

function padRow(
  levels: Float32Array,
  from: number,
  width: number,
  channels: Channels,
  padded: Float32Array,
): void {
  const elements = width * channels;
  for (let i = 0; i < elements; i++) padded[radius * channels + i] = levels[from + i] as number;
  for (let x = 1; x <= radius; x++) {
    const before = from + reflected(-x, width) * channels;
    const after = from + reflected(width - 1 + x, width) * channels;
    for (let c = 0; c < channels; c++) {
      padded[(radius - x) * channels + c] = levels[before + c] as number;
      padded[(radius + width - 1 + x) * channels + c] = levels[after + c] as number;
    }
  }
}

// hot: taps are symmetric, so 5 multiplications do for 9.
function blurRow(
  padded: Float32Array,
  channels: number,
  [w0, w1, w2, w3, w4]: readonly [number, number, number, number, number],
  elements: number,
  out: Float32Array,
  to: number,
): void {
  const c2 = 2 * channels;
  const c3 = 3 * channels;
  const c4 = 4 * channels;
  for (let i = 0; i < elements; i++) {
    const p = i + c4;
    out[to + i] =
      w0 * (padded[p] as number) +
      w1 * ((padded[p - channels] as number) + (padded[p + channels] as number)) +
      w2 * ((padded[p - c2] as number) + (padded[p + c2] as number)) +
      w3 * ((padded[p - c3] as number) + (padded[p + c3] as number)) +
      w4 * ((padded[p - c4] as number) + (padded[p + c4] as number));
  }
}

// hot:
function blurColumn(
  source: Float32Array,
  y: number,
  height: number,
  elements: number,
  [w0, w1, w2, w3, w4]: readonly [number, number, number, number, number],
  out: Float32Array,
): void {
  const row = (dy: number): number => reflected(y + dy, height) * elements;
  const s0 = y * elements;
  const [a1, b1, a2, b2] = [row(-1), row(1), row(-2), row(2)];
  const [a3, b3, a4, b4] = [row(-3), row(3), row(-4), row(4)];
  for (let i = 0; i < elements; i++) {
    out[s0 + i] =
      w0 * (source[s0 + i] as number) +
      w1 * ((source[a1 + i] as number) + (source[b1 + i] as number)) +
      w2 * ((source[a2 + i] as number) + (source[b2 + i] as number)) +
      w3 * ((source[a3 + i] as number) + (source[b3 + i] as number)) +
      w4 * ((source[a4 + i] as number) + (source[b4 + i] as number));
  }
}
