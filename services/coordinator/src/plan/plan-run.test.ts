import { parseRunSpec } from "@paddock/contract";
import fc from "fast-check";
import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { planRun, segmentAt } from "./plan-run.js";

test("ranks and bytes are all there, whatever the number of workers", () => {
  const spec = exampleSpec({ logicalRanks: 9 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 9 }), (workers) => {
      const plan = planRun(spec, { workers, startStep: 0 });
      const ranks = plan.workers.flatMap(({ ranks: { start, end } }) =>
        Array.from({ length: end - start }, (_, i) => start + i),
      );
      expect(ranks).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
      const elements = plan.layout.units.reduce((sum, unit) => sum + unit.elements, 0);
      const bytes = plan.workers.reduce((sum, { shardBytes }) => sum + shardBytes, 0);
      expect(bytes).toBe(elements * 16);
    }),
  );
});

test("a worker of a real model holds 16 bytes per parameter, divided by the workers, within 2 %", () => {
  const spec = parseRunSpec({
    steps: 1,
    batchPerRank: 2,
    model: { arch: "small" },
    data: { path: "/x" },
    logicalRanks: 8,
  });
  for (const workers of [1, 2, 3, 8]) {
    const plan = planRun(spec, { workers, startStep: 0 });
    const ideal = (16 * plan.layout.parameters) / workers;
    for (const { shardBytes } of plan.workers) {
      expect(Math.abs(shardBytes / ideal - 1)).toBeLessThan(0.02);
    }
  }
});

test("segments tile the steps that are left, cut at the same places for every start", () => {
  const spec = exampleSpec({ steps: 10, fleet: { workers: 1, segmentSteps: 4 } });
  const segmentsFrom = (startStep: number) => planRun(spec, { workers: 1, startStep }).segments;
  expect(segmentsFrom(0)).toEqual([
    { start: 0, end: 4 },
    { start: 4, end: 8 },
    { start: 8, end: 10 },
  ]);
  expect(segmentsFrom(7)).toEqual([
    { start: 7, end: 8 },
    { start: 8, end: 10 },
  ]);
  expect(segmentsFrom(10)).toEqual([]);
  expect(segmentAt(spec, 5, 6)).toEqual({ start: 5, end: 8 });
  expect(() => segmentAt(spec, 0, 10)).toThrow("step 10 of [0, 10)");
});
