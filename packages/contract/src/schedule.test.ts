/** Edges of schedules; their values are compared with the official ones by the golden files. */
import { expect, test } from "vitest";
import { scaledLearningRate, scheduleAt } from "./schedule.js";
import type { Schedule } from "./spec/train.js";

const base: Schedule = {
  kind: "cosine",
  start: 0.1,
  peak: 1,
  end: 0.2,
  warmupSteps: 0,
  freezeSteps: 0,
  truncExtra: 0,
  cosineSteps: null,
  stepsPerValue: 1,
};

function values(changes: Partial<Schedule>, steps: number, count = steps + 2): number[] {
  return Array.from({ length: count }, (_, step) =>
    scheduleAt({ ...base, ...changes }, step, steps),
  );
}

test("a warm-up of one step is its start, as numpy's linspace has it", () => {
  expect(values({ warmupSteps: 1 }, 5).slice(0, 2)).toEqual([0.1, 1]);
  expect(values({ kind: "warmup-cosine", warmupSteps: 1 }, 5).slice(0, 2)).toEqual([0.1, 1]);
});

test("frozen steps are zero, then the warm-up includes both its ends", () => {
  const [a, b, c, d, e] = values({ freezeSteps: 2, warmupSteps: 3 }, 8);
  expect([a, b, c, e]).toEqual([0, 0, 0.1, 1]);
  expect(d).toBeCloseTo(0.55, 12);
});

test("a cosine only approaches its end, a truncated one and a warmup-cosine reach it; all keep it afterwards", () => {
  const [plain, truncated, reached] = [
    values({}, 6),
    values({ truncExtra: 0.5 }, 6),
    values({ kind: "warmup-cosine" }, 6),
  ];
  expect(plain[5]).toBeGreaterThan(0.2);
  expect(truncated[5]).toBe(0.2);
  expect(reached[5]).toBe(0.2);
  for (const all of [plain, truncated, reached]) {
    expect(all[0]).toBe(1);
    expect(all.slice(6)).toEqual([0.2, 0.2]);
  }
});

test("a warmup-cosine may be shorter than the run; equal peak and end are a constant", () => {
  const short = values({ kind: "warmup-cosine", warmupSteps: 2, cosineSteps: 3 }, 9);
  expect(short.slice(2)).toEqual([1, short[3], 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]);
  expect(short[3]).toBeCloseTo(0.6, 12);
  const constant = values({ kind: "warmup-cosine", start: 0.7, peak: 0.7, end: 0.7 }, 5);
  expect(new Set(constant)).toEqual(new Set([0.7]));
});

test("single steps of cosine are the peak, not a division by zero", () => {
  expect(values({ truncExtra: 0.5 }, 1, 3)).toEqual([1, 0.2, 0.2]);
  expect(values({ kind: "warmup-cosine" }, 1, 3)).toEqual([1, 0.2, 0.2]);
  expect(values({ kind: "warmup-cosine", cosineSteps: 1 }, 4)).toEqual([
    1, 0.2, 0.2, 0.2, 0.2, 0.2,
  ]);
});

test("a schedule by epochs keeps each value for an epoch", () => {
  const changes = { start: 0.04, peak: 0.07, end: 0.07, warmupSteps: 2, stepsPerValue: 3 };
  expect(values(changes, 9, 9)).toEqual([0.04, 0.04, 0.04, ...new Array<number>(6).fill(0.07)]);
});

test("learning rates follow the batch as each project has it", () => {
  expect(scaledLearningRate("linear_wrt_256", 1, 5e-4, 1024)).toBe(2e-3);
  expect(scaledLearningRate("sqrt_wrt_1024", 2, 4e-3, 2048)).toBeCloseTo(4e-3 * Math.SQRT2, 15);
  expect(scaledLearningRate("sqrt_wrt_1024", 3, 1e-3, 2048)).toBeCloseTo(4e-3 * Math.SQRT2, 15);
  expect(scaledLearningRate("none", 3, 1e-3, 2048)).toBe(1e-3);
});
