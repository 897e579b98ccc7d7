/** The addon's flat arithmetic against plain JavaScript, bit for bit, at every position and alignment. */
import { describe, expect, test } from "vitest";
import { type AdamWOptions, type FlatMath, nativeFlatMath } from "./flat.js";
import { loadNative } from "./native.js";
import { normals } from "./testing/numbers.js";
import { skipReason } from "./testing/torch.js";

const { fround } = Math;
const bits = (x: Float32Array) => Array.from(new Uint32Array(x.buffer, x.byteOffset, x.length));
const at = (x: Float32Array, i: number) => x[i] ?? Number.NaN;

/** Lengths around the vector width, at offsets that break every alignment, over shared memory. */
const cuts = [0, 1, 7, 8, 9, 31, 64, 1003].flatMap((length) =>
  [0, 1, 3].map((offset) => ({ length, offset })),
);

function place(values: ArrayLike<number>, { length, offset }: { length: number; offset: number }) {
  const view = new Float32Array(new SharedArrayBuffer(4 * (length + offset)), 4 * offset, length);
  view.set(Array.from(values).slice(0, length));
  return view;
}

function referenceAdamW(
  [param, grad, m, v]: readonly [Float32Array, Float32Array, Float32Array, Float32Array],
  o: AdamWOptions,
) {
  const [b1, b2, eps] = [fround(o.beta1), fround(o.beta2), fround(o.eps)];
  const [rest1, rest2] = [fround(1 - b1), fround(1 - b2)];
  const decay = fround(1 - o.learningRate * o.weightDecay);
  const stepSize = fround(o.learningRate / (1 - o.beta1 ** o.step));
  const root = fround(Math.sqrt(1 - o.beta2 ** o.step));
  for (let i = 0; i < param.length; i++) {
    const g = at(grad, i);
    const mean = fround(at(m, i) + fround(rest1 * fround(g - at(m, i))));
    const square = fround(fround(at(v, i) * b2) + fround(fround(rest2 * g) * g));
    const denominator = fround(fround(fround(Math.sqrt(square)) / root) + eps);
    const update = fround(fround(stepSize * mean) / denominator);
    m[i] = mean;
    v[i] = square;
    param[i] = fround(fround(at(param, i) * decay) - update);
  }
}

/** IEEE half precision by exact arithmetic: round x / ulp to the nearest even integer. */
function referenceHalf(x: number, pattern: number): number {
  const sign = (pattern >>> 16) & 0x8000;
  if (Number.isNaN(x)) return sign | 0x7e00 | ((pattern >>> 13) & 0x1ff);
  const magnitude = Math.abs(x);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = magnitude < 2 ** -14 ? -14 : Math.floor(Math.log2(magnitude));
  const scaled = magnitude / 2 ** (exponent - 10);
  const floor = Math.floor(scaled);
  const up = scaled - floor > 0.5 || (scaled - floor === 0.5 && floor % 2 === 1);
  return sign | ((floor + (up ? 1 : 0) + ((exponent + 14) << 10)) & 0x7fff);
}

const load = loadNative();

describe.skipIf(skipReason)(`flat arithmetic ${skipReason ?? ""}`, () => {
  const flat = (load.kind === "loaded" ? nativeFlatMath(load.native) : undefined) as FlatMath;
  const x = normals(1003, 1);
  const y = normals(1003, 2);

  test("an AdamW step has the documented bits, wherever an element lies", () => {
    const options = { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.04 };
    for (const cut of cuts) {
      const arrays = () =>
        [x, y, y.map((v) => v / 3), y.map((v) => v * v)].map((v) => place(v, cut)) as unknown as [
          Float32Array,
          Float32Array,
          Float32Array,
          Float32Array,
        ];
      const [actual, wanted] = [arrays(), arrays()];
      for (const step of [1, 2, 900]) {
        flat.adamw(...actual, { ...options, step });
        referenceAdamW(wanted, { ...options, step });
      }
      for (const [i, array] of actual.entries()) {
        expect(bits(array)).toEqual(bits(wanted[i] as Float32Array));
      }
    }
  });

  test("moving averages, sums and scalings have the bits of plain JavaScript", () => {
    for (const cut of cuts) {
      const other = place(y, cut);
      const ema = place(x, cut);
      flat.ema(ema, other, 0.996);
      const [momentum, rest] = [fround(0.996), fround(1 - 0.996)];
      const average = (v: number, i: number) => fround(v * momentum) + fround(at(other, i) * rest);
      expect(bits(ema)).toEqual(bits(place(x, cut).map(average)));
      const sum = place(x, cut);
      flat.add(sum, other);
      expect(bits(sum)).toEqual(bits(place(x, cut).map((v, i) => v + at(other, i))));
      const scaled = place(x, cut);
      flat.scale(scaled, 1 / 3);
      expect(bits(scaled)).toEqual(bits(place(x, cut).map((v) => v * fround(1 / 3))));
    }
  });

  test("half precision rounds to nearest even, subnormals, infinities and NaN included", () => {
    const patterns: number[] = [];
    for (let half = 0; half < 0x10000; half++) {
      const value = decodeOne(half);
      const pattern = new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0;
      // Every half, its two float32 neighbours, the midpoint above it and that one's neighbours.
      const middle = pattern + 0x1000;
      patterns.push(pattern, pattern - 1, pattern + 1, middle, middle - 1, middle + 1);
    }
    const tiny = [0, 1, 0x33000000, 0x33000001, 0x32ffffff, 0x387fffff, 0x38000000, 0x477fefff];
    const nan = [0x7f800001, 0x7fc12345, 0xff800001, 0xffffffff, 0x7f802000, 0x477ff000];
    const source = new Float32Array(Uint32Array.from([...patterns, ...tiny, ...nan]).buffer);
    for (const [from, to] of [
      [0, source.length],
      [1, source.length - 3], // shifts every value to another place in the vector
    ] as const) {
      const part = source.subarray(from, to);
      const halves = new Uint16Array(part.length);
      flat.encodeHalf(part, halves);
      const raw = new Uint32Array(part.buffer, part.byteOffset, part.length);
      const wrong = halves.findIndex((h, i) => h !== referenceHalf(at(part, i), raw[i] ?? 0));
      expect(wrong).toBe(-1);
      const rounded = part.slice();
      flat.roundHalf(rounded);
      const decoded = new Float32Array(part.length);
      flat.decodeHalf(halves, decoded);
      expect(Buffer.compare(Buffer.from(rounded.buffer), Buffer.from(decoded.buffer))).toBe(0);
    }
  });

  test("every half decodes to its value", () => {
    const halves = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
    const decoded = new Float32Array(halves.length);
    flat.decodeHalf(halves, decoded);
    expect(halves.findIndex((h) => !Object.is(at(decoded, h), decodeOne(h)))).toBe(-1);
    for (const length of [0, 1, 7, 9]) {
      const some = new Float32Array(length);
      flat.decodeHalf(halves.subarray(15_360, 15_360 + length), some);
      expect(some).toEqual(decoded.slice(15_360, 15_360 + length));
    }
  });

  test("sums of squares go by chunk through eight lanes", () => {
    const chunk = 100;
    for (const cut of cuts) {
      const values = place(x, cut);
      const out = new Float64Array(Math.ceil(cut.length / chunk));
      flat.sumSquares(values, chunk, out);
      const wanted = out.map((_, c) => {
        const lane = new Float64Array(8);
        values.subarray(c * chunk, (c + 1) * chunk).forEach((v, i) => {
          lane[i % 8] = (lane[i % 8] ?? 0) + v * v;
        });
        const [a = 0, b = 0, d = 0, e = 0, f = 0, g = 0, h = 0, i = 0] = lane;
        return a + b + (d + e) + (f + g + (h + i));
      });
      expect(out).toEqual(wanted);
    }
  });

  test("one value that is not finite is found wherever it lies", () => {
    const values = place(x, { length: 1003, offset: 1 });
    expect(flat.allFinite(values)).toBe(true);
    expect(flat.allFinite(new Float32Array(0))).toBe(true);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      for (const i of [0, 511, 1002]) {
        const spoiled = values.slice();
        spoiled[i] = bad;
        expect(flat.allFinite(spoiled)).toBe(false);
      }
    }
  });

  test("arrays of unequal length or wrong type are JavaScript errors", () => {
    const [a, b] = [new Float32Array(4), new Float32Array(5)];
    expect(() => flat.add(a, b)).toThrow(/flatAdd: .*arrays of 4 and 5 elements/s);
    expect(() => flat.encodeHalf(a, b as unknown as Uint16Array)).toThrow(/expected a Uint16Array/);
    expect(() => flat.sumSquares(a, 2, new Float64Array(1))).toThrow(/room for 2 sums, got 1/);
    expect(() => flat.scale([1] as unknown as Float32Array, 2)).toThrow(/must be a typed array/);
  });
});

/** The value of a half by its definition. */
function decodeOne(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0
    ? sign * fraction * 2 ** -24
    : sign * (1024 + fraction) * 2 ** (exponent - 25);
}
