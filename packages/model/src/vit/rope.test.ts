import { parseRunSpec, type RopeSpec } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { vitConfigOf } from "./config.js";
import { drawRopeOf, isAugmented, ropePeriods, ropeTables, rotationOf } from "./rope.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

const plain: RopeSpec = {
  base: 100,
  minPeriod: null,
  maxPeriod: null,
  normalize: "separate",
  shift: null,
  jitter: null,
  rescale: null,
  dtype: "fp32",
};
const augmented: RopeSpec = { ...plain, shift: 0.1, jitter: 1.5, rescale: 2 };
const key = { rank: 1, block: 2, group: 0 };

test("periods are a geometric series from base, or from one period to the other", () => {
  expect([...ropePeriods(plain, 16)]).toEqual([1, 10 ** 0.5, 10, 10 ** 1.5].map(Math.fround));
  const between = ropePeriods({ ...plain, base: null, minPeriod: 0.5, maxPeriod: 32 }, 16);
  for (const [i, period] of [0.5, 2, 8, 32].entries()) expect(between[i]).toBeCloseTo(period, 5);
  expect(() => ropePeriods({ ...plain, base: null }, 16)).toThrow(/expected a base/);
});

test("angles follow the patch's centre: half of them its row, half its column", () => {
  // Head width 4: one period, of 1. Two rows have coordinates -1/2, 1/2; four columns -3/4, -1/4, 1/4, 3/4.
  const grid = { height: 2, width: 4 };
  const { cos, sin } = ropeTables(plain, 4, grid);
  expect(cos.length).toBe(2 * 4 * 2);
  const angles = (vertical: number, horizontal: number, at: number) => {
    for (const [i, coordinate] of [vertical, horizontal].entries()) {
      expect(cos[2 * at + i]).toBeCloseTo(Math.cos(2 * Math.PI * coordinate), 6);
      expect(sin[2 * at + i]).toBeCloseTo(Math.sin(2 * Math.PI * coordinate), 6);
    }
  };
  angles(-0.5, -0.75, 0);
  angles(-0.5, 0.25, 2);
  angles(0.5, 0.75, 7);
  // Over the longer side the rows are at 1/8, 3/8 of [0, 1]; over the shorter the columns reach from -1/2 to 5/2.
  const longest = ropeTables({ ...plain, normalize: "max" }, 4, grid);
  expect(longest.sin[0]).toBeCloseTo(Math.sin(2 * Math.PI * -0.75), 6);
  const shortest = ropeTables({ ...plain, normalize: "min" }, 4, grid);
  expect(shortest.sin[2 * 3 + 1]).toBeCloseTo(Math.sin(2 * Math.PI * 2.5), 5);
});

test("coordinates are shifted, then stretched per axis, then scaled", () => {
  const draw = { shift: [0.1, -0.2], logJitter: [0.3, -0.1], logRescale: 0.4 } as const;
  const { sin } = ropeTables(plain, 4, { height: 1, width: 1 }, draw);
  const moved = (shift: number, jitter: number) => shift * Math.exp(jitter) * Math.exp(0.4);
  expect(sin[0]).toBeCloseTo(Math.sin(2 * Math.PI * moved(0.1, 0.3)), 6);
  expect(sin[1]).toBeCloseTo(Math.sin(2 * Math.PI * moved(-0.2, -0.1)), 6);
});

test("draws are a function of seed, step, rank, block and group, within their limits", () => {
  const draw = drawRopeOf(augmented, 3, 5);
  expect(drawRopeOf(augmented, 3, 5)(key)).toEqual(draw(key));
  const others = [
    drawRopeOf(augmented, 4, 5)(key),
    drawRopeOf(augmented, 3, 6)(key),
    ...[{ rank: 0 }, { block: 1 }, { group: 1 }].map((change) => draw({ ...key, ...change })),
  ];
  for (const other of others) expect(other).not.toEqual(draw(key));
  const draws = Array.from({ length: 500 }, (_, block) => draw({ ...key, block }));
  const near = (values: number[], limit: number) => {
    expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(limit);
    expect(Math.max(...values)).toBeGreaterThan(0.95 * limit);
    expect(Math.min(...values)).toBeLessThan(-0.95 * limit);
  };
  for (const axis of [0, 1] as const) {
    near(
      draws.map(({ shift }) => shift[axis]),
      0.1,
    );
    near(
      draws.map(({ logJitter }) => logJitter[axis]),
      Math.log(1.5),
    );
  }
  near(
    draws.map(({ logRescale }) => logRescale),
    Math.log(2),
  );
});

test("what is off does not move coordinates", () => {
  expect([plain, augmented, null].map(isAugmented)).toEqual([false, true, false]);
  const only = drawRopeOf({ ...plain, rescale: 2 }, 3, 5)(key);
  expect([...only.shift, ...only.logJitter].map(Math.abs)).toEqual([0, 0, 0, 0]);
  expect(only.logRescale).not.toBe(0);
});

test("tables of groups lie one after the other; a learned encoding has none", () => {
  const model = { width: 32, heads: 2, registers: 2, positions: "rope" } as const;
  const spec = parseRunSpec({ steps: 1, batchPerRank: 2, data: { path: "unused" }, model });
  const config = vitConfigOf(spec);
  const grids = [
    { height: 2, width: 3 },
    { height: 1, width: 2 },
  ];
  const rotation = rotationOf(config, grids);
  expect([rotation?.cos.shape, rotation?.sin.shape, rotation?.prefix]).toEqual([[8, 8], [8, 8], 3]);
  const second = ropeTables(spec.model.rope, 16, { height: 1, width: 2 });
  expect([...(rotation?.cos.dataSync() ?? [])].slice(6 * 8)).toEqual([...second.cos]);
  tf.dispose([rotation?.cos, rotation?.sin] as tf.Tensor[]);
  expect(rotationOf({ ...config, rope: null }, grids)).toBeUndefined();
});
