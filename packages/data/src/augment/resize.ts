/**
 * Bicubic resize with antialiasing, as Pillow does it (a = -0.5, support widened when shrinking, clipped to the valid range between
 * the horizontal and the vertical pass), in floats without Pillow's rounding. Crop, resize and flip are one operation.
 */
import type { Channels, Image } from "../image.js";
import { clipLevel } from "./color.js";
import type { Box } from "./plan.js";
import { scratchOf } from "./scratch.js";

/** For each output pixel: `count` weights at `x * stride`, applied to input pixels from `start` on. They sum to 1. */
interface Filter {
  readonly start: Int32Array;
  readonly count: Int32Array;
  readonly weights: Float32Array;
  readonly stride: number;
}

/** What of the resized box is wanted: its pixels [from, from + size) of `total`, along each axis. */
export interface Window {
  readonly total: number;
  readonly from: number;
  readonly size: number;
}

/** The whole of an output of `size` pixels. */
export function wholeOf(size: number): Window {
  return { total: size, from: 0, size };
}

/**
 * Resizes `box` of the image and keeps the given windows of the result.
 * @param out [rows.size, columns.size, channels], levels in [0, 255], from element 0 on
 */
export function resizeBox(
  image: Image,
  box: Box,
  rows: Window,
  columns: Window,
  flip: boolean,
  out: Float32Array,
): void {
  const vertical = filterFor(box.height, rows);
  const horizontal = filterFor(box.width, columns);
  const first = vertical.start[0] as number;
  const last = rows.size - 1;
  const end = (vertical.start[last] as number) + (vertical.count[last] as number);
  const rowElements = columns.size * image.channels;
  const narrow = scratchOf("resize", (end - first) * rowElements);
  for (let y = first; y < end; y++) {
    const from = ((box.top + y) * image.width + box.left) * image.channels;
    const to = (y - first) * rowElements;
    resizeRow(image.channels, image.pixels, from, horizontal, columns.size, flip, narrow, to);
  }
  resizeColumns(narrow, first, vertical, rows.size, rowElements, out);
}

/**
 * Resizes a crop that has been computed already to [size, size, channels], with the same filter. Unclipped it may leave [0, 255] at hard
 * edges, as torch's resize of float tensors does (DINOv3's gram crops with distortions).
 * @param source [height, width, channels]; may be longer
 */
export function resizeLevels(
  source: Float32Array,
  { height, width }: { readonly height: number; readonly width: number },
  channels: Channels,
  size: number,
  clip: boolean,
  out: Float32Array,
): void {
  const horizontal = filterFor(width, wholeOf(size));
  const vertical = filterFor(height, wholeOf(size));
  const row = size * channels;
  const narrow = scratchOf("resize", height * row);
  for (let y = 0, e = 0; y < height; y++) {
    for (let i = 0; i < row; i++, e++) {
      const from = y * width * channels + (i % channels);
      narrow[e] = tapsOf(source, from, channels, horizontal, Math.floor(i / channels), clip);
    }
  }
  for (let y = 0, e = 0; y < size; y++) {
    for (let i = 0; i < row; i++, e++) out[e] = tapsOf(narrow, i, row, vertical, y, clip);
  }
}

/** Output `x` of a filter over the elements `from`, `from + stride`, ... */
function tapsOf(
  source: Float32Array,
  from: number,
  stride: number,
  filter: Filter,
  x: number,
  clip: boolean,
): number {
  const n = filter.count[x] as number;
  const first = from + (filter.start[x] as number) * stride;
  const w = x * filter.stride;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    sum += (source[first + i * stride] as number) * (filter.weights[w + i] as number);
  }
  return clip ? clipLevel(sum) : sum;
}

function resizeRow(
  channels: Channels,
  source: Uint8Array,
  from: number,
  filter: Filter,
  size: number,
  flip: boolean,
  out: Float32Array,
  to: number,
): void {
  if (channels === 1) resizeRowGrey(source, from, filter, size, flip, out, to);
  else resizeRowRgb(source, from, filter, size, flip, out, to);
}

// hot:
function resizeRowGrey(
  source: Uint8Array,
  from: number,
  { start, count, weights, stride }: Filter,
  size: number,
  flip: boolean,
  out: Float32Array,
  to: number,
): void {
  for (let x = 0; x < size; x++) {
    const s = from + (start[x] as number);
    const n = count[x] as number;
    const w = x * stride;
    let sum = 0;
    for (let i = 0; i < n; i++) sum += (source[s + i] as number) * (weights[w + i] as number);
    out[to + (flip ? size - 1 - x : x)] = clipLevel(sum);
  }
}

// hot:
function resizeRowRgb(
  source: Uint8Array,
  from: number,
  { start, count, weights, stride }: Filter,
  size: number,
  flip: boolean,
  out: Float32Array,
  to: number,
): void {
  for (let x = 0; x < size; x++) {
    let s = from + 3 * (start[x] as number);
    const w = x * stride;
    const wEnd = w + (count[x] as number);
    let red = 0;
    let green = 0;
    let blue = 0;
    for (let i = w; i < wEnd; i++) {
      const weight = weights[i] as number;
      red += (source[s] as number) * weight;
      green += (source[s + 1] as number) * weight;
      blue += (source[s + 2] as number) * weight;
      s += 3;
    }
    const o = to + 3 * (flip ? size - 1 - x : x);
    out[o] = clipLevel(red);
    out[o + 1] = clipLevel(green);
    out[o + 2] = clipLevel(blue);
  }
}

// hot: four rows a time, because most filters have at least four taps and each pass over `out` costs as much as a multiplication.
function resizeColumns(
  source: Float32Array,
  first: number,
  { start, count, weights, stride }: Filter,
  size: number,
  rowElements: number,
  out: Float32Array,
): void {
  for (let y = 0; y < size; y++) {
    const o = y * rowElements;
    const n = count[y] as number;
    const w = y * stride;
    const s = ((start[y] as number) - first) * rowElements;
    out.fill(0, o, o + rowElements);
    let i = 0;
    for (; i + 4 <= n; i += 4) {
      const a = weights[w + i] as number;
      const b = weights[w + i + 1] as number;
      const c = weights[w + i + 2] as number;
      const d = weights[w + i + 3] as number;
      const s0 = s + i * rowElements;
      const s1 = s0 + rowElements;
      const s2 = s1 + rowElements;
      const s3 = s2 + rowElements;
      for (let e = 0; e < rowElements; e++) {
        out[o + e] =
          (out[o + e] as number) +
          (source[s0 + e] as number) * a +
          (source[s1 + e] as number) * b +
          (source[s2 + e] as number) * c +
          (source[s3 + e] as number) * d;
      }
    }
    for (; i < n; i++) {
      const a = weights[w + i] as number;
      const s0 = s + i * rowElements;
      for (let e = 0; e < rowElements; e++) {
        out[o + e] = (out[o + e] as number) + (source[s0 + e] as number) * a;
      }
    }
    for (let e = o; e < o + rowElements; e++) out[e] = clipLevel(out[e] as number);
  }
}

/** Filters depend on sizes only, not on where the box lies: small images meet few of them. */
const filters = new Map<string, Filter>();
let filterElements = 0;
/** 1 Mi weights = 4 MiB; when full, all are dropped. */
const maxFilterElements = 2 ** 20;

function filterFor(inputSize: number, window: Window): Filter {
  const key = `${inputSize}/${window.total}/${window.from}/${window.size}`;
  const known = filters.get(key);
  if (known) return known;
  const filter = makeFilter(inputSize, window);
  if (filterElements + filter.weights.length > maxFilterElements) {
    filters.clear();
    filterElements = 0;
  }
  filters.set(key, filter);
  filterElements += filter.weights.length;
  return filter;
}

/** Pillow's precompute_coeffs. */
function makeFilter(inputSize: number, { total, from, size }: Window): Filter {
  const scale = inputSize / total;
  const widening = Math.max(1, scale);
  const support = 2 * widening;
  const stride = Math.ceil(support) * 2 + 1;
  const start = new Int32Array(size);
  const count = new Int32Array(size);
  const weights = new Float32Array(size * stride);
  for (let x = 0; x < size; x++) {
    const center = (from + x + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - support + 0.5));
    const high = Math.min(inputSize, Math.trunc(center + support + 0.5));
    start[x] = low;
    count[x] = high - low;
    let sum = 0;
    for (let i = low; i < high; i++) sum += cubic((i - center + 0.5) / widening);
    for (let i = low; i < high; i++) {
      weights[x * stride + i - low] = cubic((i - center + 0.5) / widening) / sum;
    }
  }
  return { start, count, weights, stride };
}

/** Catmull-Rom: Keys' cubic with a = -0.5. */
function cubic(signed: number): number {
  const x = Math.abs(signed);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}
