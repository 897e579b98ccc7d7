import fc from "fast-check";
import { expect, test } from "vitest";
import {
  chunkElements,
  cutsBySpeed,
  evenCuts,
  intersect,
  ranksOf,
  ranksOfCut,
  shardOf,
  sizeOf,
} from "./shards.js";

test("shards tile a unit, at chunk boundaries, and differ by at most one chunk", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e6 }),
      fc.integer({ min: 1, max: 17 }),
      (elements, workers) => {
        let at = 0;
        const sizes: number[] = [];
        for (let w = 0; w < workers; w++) {
          const shard = shardOf(elements, w, workers);
          expect(shard.start).toBe(at);
          if (shard.end < elements) expect(shard.end % chunkElements).toBe(0);
          at = shard.end;
          sizes.push(sizeOf(shard));
        }
        expect(at).toBe(elements);
        expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(2 * chunkElements);
      },
    ),
  );
});

test("resharding by intersection moves every element exactly once", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5000 }),
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 9 }),
      (elements, from, to) => {
        const seen = new Uint8Array(elements);
        for (let a = 0; a < from; a++) {
          for (let b = 0; b < to; b++) {
            const common = intersect(shardOf(elements, a, from), shardOf(elements, b, to));
            for (let i = common?.start ?? 0; i < (common?.end ?? 0); i++)
              seen[i] = (seen[i] as number) + 1;
          }
        }
        expect(seen.every((count) => count === 1)).toBe(true);
      },
    ),
  );
});

test("logical ranks are contiguous and spread evenly, also when workers do not divide them", () => {
  for (const [ranks, workers] of [
    [4, 3],
    [8, 5],
    [7, 7],
    [8, 1],
  ] as const) {
    const ranges = Array.from({ length: workers }, (_, w) => ranksOf(ranks, w, workers));
    expect(ranges[0]?.start).toBe(0);
    expect(ranges.at(-1)?.end).toBe(ranks);
    ranges.forEach((range, i) => {
      expect(range.start).toBe(ranges[i - 1]?.end ?? 0);
      expect(sizeOf(range)).toBeGreaterThanOrEqual(Math.floor(ranks / workers));
      expect(sizeOf(range)).toBeLessThanOrEqual(Math.ceil(ranks / workers));
    });
  }
});

test("ranks are dealt by speed: no other deal ends sooner, and nobody is left without", () => {
  expect(cutsBySpeed(8, [1, 1])).toEqual([0, 4, 8]);
  expect(cutsBySpeed(8, [3, 1])).toEqual([0, 6, 8]);
  expect(cutsBySpeed(3, [100, 1, 1])).toEqual([0, 1, 2, 3]);
  expect(evenCuts(8, 3)).toEqual([0, 2, 5, 8]);
  const slowest = (cuts: readonly number[], speeds: readonly number[]): number =>
    Math.max(...speeds.map((speed, w) => sizeOf(ranksOfCut(cuts, w)) / speed));
  const speeds = [1.7, 0.4, 1];
  const best = slowest(cutsBySpeed(7, speeds), speeds);
  for (let a = 1; a < 6; a++) {
    for (let b = a + 1; b < 7; b++) {
      expect(slowest([0, a, b, 7], speeds)).toBeGreaterThanOrEqual(best);
    }
  }
});
