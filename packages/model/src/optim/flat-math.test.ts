import { chunkElements, chunksIn, layoutOf, parseRunSpec, rngOf, shardOf } from "@paddock/contract";
import { expect, test } from "vitest";
import { referenceFlatMath as flat } from "./flat-math.js";
import { clipCoefficient, type Shard, updateUnit } from "./update.js";
import { hostVectors } from "./vectors.js";

const rng = rngOf(3);
const random = (length: number, scale = 1): Float32Array =>
  Float32Array.from({ length }, () => scale * rng.normal());

test("every fp16 value survives decode and encode", () => {
  const halves = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
  const floats = new Float32Array(0x10000);
  flat.decodeHalf(halves, floats);
  const back = new Uint16Array(0x10000);
  flat.encodeHalf(floats, back);
  for (let i = 0; i < 0x10000; i++) {
    const isNan = (i & 0x7c00) === 0x7c00 && (i & 0x3ff) !== 0;
    if (isNan) expect(floats[i]).toBeNaN();
    else expect(back[i]).toBe(i);
  }
  expect([floats[0x3c00], floats[0xc000], floats[1], floats[0x7bff]]).toEqual([
    1,
    -2,
    2 ** -24,
    65504,
  ]);
});

test("encoding rounds to the nearest fp16 value, ties to even", () => {
  const cases: [number, number][] = [
    [1 + 2 ** -11, 1],
    [1 + 3 * 2 ** -11, 1 + 2 ** -9],
    [1 + 2 ** -11 + 2 ** -20, 1 + 2 ** -10],
    [65519, 65504],
    [65520, Number.POSITIVE_INFINITY],
    [-1e6, Number.NEGATIVE_INFINITY],
    [2 ** -25, 0],
    [2 ** -25 * 1.0001, 2 ** -24],
    [3 * 2 ** -25, 2 ** -23],
    [2 ** -14 - 2 ** -26, 2 ** -14],
    [-(2 ** -14 - 2 ** -24), -(2 ** -14 - 2 ** -24)],
  ];
  const rounded = Float32Array.from(cases, ([value]) => value);
  flat.roundHalf(rounded);
  expect([...rounded]).toEqual(cases.map(([, expected]) => expected));
  const nan = Float32Array.of(Number.NaN, -Number.NaN);
  flat.roundHalf(nan);
  expect([...nan]).toEqual([Number.NaN, Number.NaN]);
});

test("encoding is never farther from a value than its fp16 neighbours", () => {
  const values = Float32Array.from(
    { length: 5000 },
    () => rng.normal() * 2 ** (40 * rng.uniform() - 26),
  );
  const halves = new Uint16Array(values.length);
  const decoded = new Float32Array(values.length);
  flat.encodeHalf(values, halves);
  flat.decodeHalf(halves, decoded);
  const neighbour = new Float32Array(values.length);
  for (const step of [-1, 1]) {
    flat.decodeHalf(
      halves.map((half) => half + step),
      neighbour,
    );
    for (const [i, value] of values.entries()) {
      const other = neighbour[i] as number;
      if (!Number.isFinite(other) || !Number.isFinite(decoded[i])) continue;
      expect(Math.abs((decoded[i] as number) - value)).toBeLessThanOrEqual(Math.abs(other - value));
    }
  }
});

test("sums of squares follow the stated lanes", () => {
  const x = random(300);
  const out = new Float64Array(2);
  flat.sumSquares(x, 256, out);
  const lanes = new Array<number>(8).fill(0);
  for (let i = 0; i < 44; i++) {
    lanes[i % 8] = (lanes[i % 8] as number) + (x[256 + i] as number) ** 2;
  }
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = lanes;
  expect(out[1]).toBe(a + b + (c + d) + (e + f + (g + h)));
});

test("AdamW moves by the learning rate on its first step, and decays the weight first", () => {
  const [p, g, m, v] = [[2], [0.5], [0], [0]].map((x) => Float32Array.from(x)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const o = { learningRate: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.2, step: 1 };
  flat.adamw(p, g, m, v, o);
  expect(p[0]).toBeCloseTo(2 * (1 - 0.1 * 0.2) - 0.1, 6);
  expect(m[0]).toBeCloseTo(0.05, 7);
  expect(v[0]).toBeCloseTo(0.00025, 9);
});

test("add, scale, ema and the finite check do what they say", () => {
  const x = Float32Array.of(1, 2);
  flat.add(x, Float32Array.of(3, 4));
  flat.scale(x, 0.5);
  expect([...x]).toEqual([2, 3]);
  flat.ema(x, Float32Array.of(4, 7), 0.75);
  expect([...x]).toEqual([2.5, 4]);
  expect(flat.allFinite(x)).toBe(true);
  expect(flat.allFinite(Float32Array.of(1, Number.NaN))).toBe(false);
  expect(flat.allFinite(Float32Array.of(Number.POSITIVE_INFINITY))).toBe(false);
});

test("a gradient within the limit is not clipped, a larger one to the limit", () => {
  expect(clipCoefficient(2, 3)).toBe(1);
  expect(clipCoefficient(6, 3)).toBeCloseTo(0.5, 6);
  expect(clipCoefficient(6, 0)).toBe(1);
});

test("an update gives the same values for every cut into shards, frozen layer and padding included", () => {
  const spec = parseRunSpec({
    steps: 10,
    batchPerRank: 2,
    data: { path: "unused" },
    model: { width: 20, depth: 1, heads: 2, patchSize: 4 },
    heads: { dino: { prototypes: 30, bottleneck: 10, hidden: 25 } },
    crops: { global: { size: 16, scale: [0.3, 1] }, local: { size: 8, scale: [0.1, 0.3] } },
  });
  const scalars = {
    learningRate: 0.01,
    lastLayerLearningRate: 0,
    weightDecay: 0.1,
    momentum: 0.9,
    teacherTemperature: 0.05,
    localWeight: 1,
    gramWeight: 1,
  };
  const unit = layoutOf(spec).units.at(-1);
  if (!unit) throw new RangeError("no unit");
  const padded = (): Float32Array => {
    const values = new Float32Array(unit.elements);
    for (const { offset, elements } of unit.parameters) values.set(random(elements), offset);
    return values;
  };
  const start = { student: padded(), grad: padded(), m: padded(), v: padded(), teacher: padded() };
  start.v = start.v.map(Math.abs);
  const updated = (workers: number): Shard<Float32Array> => {
    const copy = Object.fromEntries(
      Object.entries(start).map(([name, values]) => [name, values.slice()]),
    ) as unknown as Shard<Float32Array>;
    for (let worker = 0; worker < workers; worker++) {
      const range = shardOf(unit.elements, worker, workers);
      const shard = Object.fromEntries(
        Object.entries(copy).map(([name, x]) => [name, x.subarray(range.start, range.end)]),
      ) as unknown as Shard<Float32Array>;
      updateUnit(hostVectors(flat), unit, range, shard, {
        spec,
        scalars,
        step: 4,
        // Clipped by 0.3.
        norms: { [unit.submodule]: spec.optimizer.clipNorm / 0.3 },
      });
    }
    return copy;
  };
  const whole = updated(1);
  for (const workers of [2, 3, 7]) expect(updated(workers)).toEqual(whole);
  expect(chunksIn(unit.elements)).toBeGreaterThan(7 / chunkElements);
  for (const { offset, elements, isLastLayer, name } of unit.parameters) {
    const [before, after] = [start.student, whole.student].map((x) =>
      x.slice(offset, offset + elements),
    );
    if (isLastLayer) expect(after, name).toEqual(before);
    else expect(after, name).not.toEqual(before);
    expect(whole.m.slice(offset, offset + elements), name).not.toEqual(
      start.m.slice(offset, offset + elements),
    );
    const end = offset + elements;
    expect(whole.student.slice(end, Math.ceil(end / 16) * 16).every((x) => x === 0)).toBe(true);
  }
});
