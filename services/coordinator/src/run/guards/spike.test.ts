import { rngOf } from "@paddock/contract";
import { expect, test } from "vitest";
import type { LossAt } from "./history.js";
import { isCalm, spikeAt } from "./spike.js";

const settings = { factor: 10, window: 8, steps: 2, action: "warn" } as const;

const losses = (values: readonly number[], first = 0): LossAt[] =>
  values.map((loss, index) => ({ step: first + index, loss }));

const calm = [5, 5.1, 4.9, 5, 5.1, 4.9, 5, 5.1, 4.9, 5];

test("so many losses in a row above make a spike, at the last of them and at no other", () => {
  const all = losses([...calm, 50, 60, 70, 5, 5], 100);
  const found = all.map((_, index) => spikeAt(settings, all.slice(0, index + 1)));
  expect(found.map((spike) => spike?.step)).toEqual([
    ...Array.from({ length: 11 }, () => undefined),
    111,
    undefined,
    undefined,
    undefined,
  ]);
  expect(found[11]).toMatchObject({ from: 110, step: 111, loss: 60, median: 5 });
  // Median 5 and deviations of 0.1: 1.4826 times that, ten times over.
  expect(found[11]?.limit).toBeCloseTo(5 + 10 * 1.4826 * 0.1, 10);
});

test("one high loss alone, a high loss before the window is full, and falls are no spikes", () => {
  expect(spikeAt(settings, losses([...calm, 50]))).toBeNull();
  expect(spikeAt(settings, losses([...calm, 50, 5, 50]))).toBeNull();
  expect(spikeAt(settings, losses([5, 5, 5, 5, 5, 5, 5, 50, 50]))).toBeNull();
  expect(spikeAt(settings, losses([...calm, -50, -60]))).toBeNull();
});

test("losses that hardly vary are not judged by their last digits", () => {
  const flat = Array.from({ length: 20 }, () => 5);
  expect(spikeAt(settings, losses([...flat, 5.4, 5.4]))).toBeNull();
  expect(spikeAt(settings, losses([...flat, 5.6, 5.6]))).not.toBeNull();
});

test("normal noise about a falling loss is no spike in 10,000 steps", () => {
  const rng = rngOf(7, 1);
  const all = losses(
    Array.from(
      { length: 10_000 },
      (_, step) => 5 + 5 * Math.exp(-step / 2000) + 0.1 * rng.normal(),
    ),
  );
  const wide = { ...settings, window: 64, steps: 3 };
  for (let end = 1; end <= all.length; end += 1) {
    const seen = all.slice(Math.max(0, end - 70), end);
    if (spikeAt(wide, seen)) throw new Error(`a spike at step ${end - 1}`);
  }
});

test("a spike is over when the loss is half way down", () => {
  const limit = 10 * 1.4826 * 0.1;
  expect(isCalm(settings, losses([...calm, 5 + 0.6 * limit]))).toBe(false);
  expect(isCalm(settings, losses([...calm, 5 + 0.4 * limit]))).toBe(true);
  expect(isCalm(settings, [])).toBe(false);
});
