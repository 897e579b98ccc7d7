import { rngOf } from "@paddock/contract";
import { expect, test } from "vitest";
import {
  collateMasks,
  drawMask,
  drawMasks,
  type MaskDraws,
  maskDrawsOf,
  upperTargets,
} from "./masks.js";
import { greySpec, officialSpec } from "./testing/spec.js";

test("masks are keyed by seed, step and rank", () => {
  const spec = officialSpec();
  const rows = (step: number, rank: number) => [...drawMasks(spec, step, rank).maskRows];
  expect(rows(3, 1)).toEqual(rows(3, 1));
  expect(rows(3, 1)).not.toEqual(rows(3, 2));
  expect(rows(3, 1)).not.toEqual(rows(4, 1));
});

test("rows ascend inside 2B * P, and the weights of each masked crop sum to 1", () => {
  const spec = officialSpec({ batchPerRank: 8 });
  const patches = 196;
  const { maskRows, maskWeights } = drawMasks(spec, 0, 0);
  const sums = new Map<number, number>();
  maskRows.forEach((row, i) => {
    if (i > 0) expect(row).toBeGreaterThan(maskRows[i - 1] as number);
    const crop = Math.floor(row / patches);
    sums.set(crop, (sums.get(crop) ?? 0) + (maskWeights[i] as number));
  });
  expect(maskRows.at(-1)).toBeLessThan(16 * patches);
  expect(sums.size).toBe(8);
  for (const sum of sums.values()) expect(sum).toBeCloseTo(1, 5);
});

test("no iBOT loss, no masks", () => {
  expect(drawMasks(officialSpec({ loss: { ibot: 0 } }), 0, 0).maskRows).toHaveLength(0);
});

test("small grids are masked within their targets; a grid of one patch never", () => {
  for (const side of [1, 2, 3, 4, 7]) {
    const spec = greySpec({
      batchPerRank: 64,
      model: { channels: 1, patchSize: 4 },
      crops: { global: { size: 4 * side, scale: [0.3, 1] }, localCount: 0, mean: [0], std: [1] },
    });
    const { maskRows } = drawMasks(spec, 1, 2);
    const perCrop = new Map<number, number>();
    for (const row of maskRows) {
      const crop = Math.floor(row / side ** 2);
      perCrop.set(crop, (perCrop.get(crop) ?? 0) + 1);
    }
    expect(Math.max(0, ...perCrop.values())).toBeLessThanOrEqual(side ** 2 / 2);
    expect(maskRows.length > 0).toBe(side > 1);
  }
});

function countOf(mask: Uint8Array): number {
  return mask.reduce((sum, bit) => sum + bit, 0);
}

test("exact masks hold their targets, whatever is drawn, and every rank masks as many patches", () => {
  for (const target of [0, 1, 5, 60, 98, 196]) {
    for (let seed = 0; seed < 20; seed++) {
      expect(countOf(drawMask(maskDrawsOf(rngOf(seed)), 14, target, true))).toBe(target);
    }
  }
  const spec = officialSpec({ batchPerRank: 4, masks: { exact: true, circularShift: true } });
  const counts = [0, 1, 2, 3].map((rank) => drawMasks(spec, 9, rank).maskRows.length);
  expect(counts).toEqual([273, 273, 273, 273]);
});

test("targets are those of single precision", () => {
  expect(upperTargets(196, 4, [0.1, 0.5])).toEqual([39, 58, 78, 98]);
  // 0.1 + 0.4 / 2 is 0.30000000000000004 in doubles and 0.3 in floats; 100 floats of it are exactly 30.
  expect(upperTargets(100, 2, [0.1, 0.5])).toEqual([30, 50]);
  expect(upperTargets(10, 1, [0, 0.7])).toEqual([7]);
});

test("a circular shift moves a mask by the numbers drawn last, and keeps its shape", () => {
  const settings = { probability: 1, ratio: [0.2, 0.2] as [number, number], exact: true };
  const integers: number[] = [];
  const noted = (): MaskDraws => {
    const draws = maskDrawsOf(rngOf(3));
    const integer = (low: number, high: number): number => {
      integers.push(draws.integer(low, high));
      return integers.at(-1) as number;
    };
    return { ...draws, integer };
  };
  const [plain] = collateMasks(noted(), 1, 14, { ...settings, circularShift: false });
  const [rolled] = collateMasks(noted(), 1, 14, { ...settings, circularShift: true });
  const [rows, columns] = integers.slice(-2) as [number, number];
  const wanted = Uint8Array.from(plain as Uint8Array, (_, patch) => {
    const y = (Math.floor(patch / 14) - rows + 14) % 14;
    return plain?.[y * 14 + (((patch % 14) - columns + 14) % 14)] as number;
  });
  expect(rolled).toEqual(wanted);
  expect(rolled).not.toEqual(plain);
});
