import { rngOf } from "@paddock/contract";
import { expect, test } from "vitest";
import { collateMasks, drawMask, drawMasks, type MaskDraws, packMasks } from "./masks.js";
import { type Golden, readGolden } from "./testing/golden.js";
import { greySpec, officialSpec } from "./testing/spec.js";

const uniformKind = 0;
const integerKind = 1;
const shuffleKind = 2;

/** Answers with recorded draws, and insists that they are asked for with the recorded bounds. */
function replayOf(golden: Golden, draws: string, shuffle?: string) {
  const rows = golden.has(draws) ? golden.values(draws) : new Float64Array();
  let at = 0;
  const next = (kind: number, a: number, b: number | null): number => {
    const row = rows.subarray(4 * at, 4 * at + 4);
    at++;
    expect(row[0]).toBe(kind);
    expect(row[1]).toBeCloseTo(a, 6); // the collate's bins are float32 in the reference
    if (b !== null) expect(row[2]).toBeCloseTo(b, 6);
    return row[3] as number;
  };
  const replay: MaskDraws = {
    uniform: (low, high) => next(uniformKind, low, high),
    integer: (low, high) => next(integerKind, low, high),
    order: (n) => {
      next(shuffleKind, n, null);
      return golden.values(shuffle as string);
    },
  };
  return { replay, isUsedUp: () => 4 * at === rows.length };
}

const generator = readGolden("masking_generator");
const { grid, seeds, targets } = generator.meta("config") as {
  grid: number;
  seeds: number[];
  targets: number[];
};

test.each(targets)("recorded draws give the recorded masks of %i patches", (target) => {
  for (const seed of seeds) {
    const name = `seed${seed}.target${target}`;
    const { replay, isUsedUp } = replayOf(generator, `inputs.draws.${name}`);
    expect(drawMask(replay, grid, target)).toEqual(generator.values(`outputs.mask.${name}`));
    expect(isUsedUp()).toBe(true);
  }
});

const collate = readGolden("collate");

test.each([0, 1, 7, 11])("recorded draws of seed %i give the recorded batch of masks", (seed) => {
  const { replay, isUsedUp } = replayOf(
    collate,
    `inputs.draws.seed${seed}`,
    `inputs.shuffle.seed${seed}`,
  );
  const masks = collateMasks(replay, 8, 4, {
    probability: 0.5,
    ratio: [0.1, 0.5],
    exact: false,
    circularShift: false,
  });
  expect(isUsedUp()).toBe(true);
  expect(masks.flatMap((mask) => [...mask])).toEqual([
    ...collate.values(`outputs.collated_masks.seed${seed}`),
  ]);
  const { maskRows, maskWeights } = packMasks(masks);
  expect([...maskRows]).toEqual([...collate.values(`outputs.mask_indices_list.seed${seed}`)]);
  expect([...maskWeights]).toEqual([...collate.values(`outputs.masks_weight.seed${seed}`)]);
});

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function drawsOf(seed: number): MaskDraws {
  const rng = rngOf(seed);
  return {
    uniform: (low, high) => rng.between(low, high),
    integer: (low, high) => low + rng.below(high - low + 1),
    order: (n) => rng.permutation(n),
  };
}

test.each([20, 50, 98])("masks of %i patches have the recorded counts and places", (target) => {
  const numMasks = 2000;
  const draws = drawsOf(target);
  const masks = Array.from({ length: numMasks }, () => drawMask(draws, grid, target));
  const counts = masks.map((mask) => mask.reduce((sum, bit) => sum + bit, 0));
  const [theirMean, theirStd] = generator.values(`outputs.stats.target${target}.count_mean_std`);
  // Four standard errors of both samples of 2,000.
  const limit = 4 * (theirStd as number) * Math.sqrt(2 / numMasks);
  expect(Math.abs(mean(counts) - (theirMean as number))).toBeLessThanOrEqual(limit);
  const places = generator.values(`outputs.stats.target${target}.cell_freq`);
  places.forEach((theirs, cell) => {
    const ours = mean(masks.map((mask) => mask[cell] as number));
    const error = Math.sqrt((2 * theirs * (1 - theirs)) / numMasks);
    expect(Math.abs(ours - theirs)).toBeLessThanOrEqual(5 * error); // 5: of 196 cells, one may exceed 4
  });
});

test("the official settings mask the recorded number of patches per batch", () => {
  const spec = officialSpec({ batchPerRank: 4 });
  const counts = Array.from({ length: 600 }, (_, step) => drawMasks(spec, step, 0).maskRows.length);
  const [theirMean, theirStd] = collate.values("outputs.stats.n_masked_mean_std_min_max");
  const limit = 4 * (theirStd as number) * Math.sqrt(1 / 600 + 1 / 2000);
  expect(Math.abs(mean(counts) - (theirMean as number))).toBeLessThanOrEqual(limit);
});

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
