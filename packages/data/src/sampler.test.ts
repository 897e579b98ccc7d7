import { rngOf } from "@paddock/contract";
import fc from "fast-check";
import { expect, test } from "vitest";
import { permuted, positionOf, replacementId, sampleId } from "./sampler.js";

const seeds = fc.nat();

test("every pass holds each sample once, for any count", () => {
  fc.assert(
    fc.property(
      seeds,
      fc.integer({ min: 1, max: 700 }),
      fc.nat({ max: 5 }),
      (seed, count, pass) => {
        const seen = new Set<number>();
        for (let i = 0; i < count; i++) seen.add(sampleId(seed, count, pass * count + i));
        return seen.size === count && Math.min(...seen) === 0 && Math.max(...seen) === count - 1;
      },
    ),
    { numRuns: 60 },
  );
});

test("permutations stay inside huge datasets and keep ids apart", () => {
  fc.assert(
    fc.property(seeds, fc.integer({ min: 2 ** 20, max: 2 ** 50 }), fc.nat(), (seed, count, at) => {
      const [a, b] = [at % count, (at + 1) % count];
      const [pa, pb] = [permuted(rngOf(seed), count, a), permuted(rngOf(seed), count, b)];
      return pa !== pb && [pa, pb].every((id) => Number.isInteger(id) && 0 <= id && id < count);
    }),
  );
});

test("passes and seeds have orders of their own", () => {
  const order = (seed: number, pass: number) =>
    Array.from({ length: 50 }, (_, i) => sampleId(seed, 50, pass * 50 + i)).join();
  expect(new Set([order(0, 0), order(0, 1), order(1, 0), order(1, 1)]).size).toBe(4);
});

test("every sample is equally likely at every position", () => {
  // 24 orders of 4 samples and 6,000 seeds: 250 each, standard deviation 15.5; five of them.
  const counts = new Map<string, number>();
  for (let seed = 0; seed < 6000; seed++) {
    const order = [0, 1, 2, 3].map((position) => sampleId(seed, 4, position)).join();
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  expect(counts.size).toBe(24);
  for (const count of counts.values()) expect(Math.abs(count - 250)).toBeLessThan(5 * 15.5);
});

test("neighbours in the stream are not neighbours in the dataset", () => {
  const count = 60_000;
  let sum = 0;
  for (let i = 0; i < 4000; i++) {
    sum += Math.abs(sampleId(7, count, i) - sampleId(7, count, i + 1)) / count;
  }
  // Two independent uniform numbers differ by 1/3 on average, with deviation 0.236.
  expect(Math.abs(sum / 4000 - 1 / 3)).toBeLessThan((4 * 0.236) / Math.sqrt(4000));
});

test("positions tile the stream: step by step, rank by rank, image by image", () => {
  const run = { logicalRanks: 3, batchPerRank: 2 };
  const positions = [0, 1].flatMap((step) =>
    [0, 1, 2].flatMap((rank) => [0, 1].map((image) => positionOf(run, step, rank, image))),
  );
  expect(positions).toEqual(Array.from({ length: 12 }, (_, i) => i));
});

test("replacements are inside the dataset and differ between attempts", () => {
  const ids = Array.from({ length: 20 }, (_, attempt) => replacementId(1, 1000, 5, attempt));
  expect(ids.every((id) => 0 <= id && id < 1000)).toBe(true);
  expect(new Set(ids).size).toBeGreaterThan(15);
  expect(replacementId(1, 1000, 5, 3)).toBe(ids[3]);
});
