import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { chooseSequencesOf, drawSamples, drawSubset, drawUniformsOf } from "./stochastic-depth.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

const groups = [
  { count: 4, length: 2 },
  { count: 2, length: 1 },
];
const key = { rank: 1, block: 2, branch: 0, group: 0 } as const;

test("by sample a sequence is dropped if its number is below the rate, and scaled up if not", () => {
  const before = tf.memory().numTensors;
  const numbers = [
    [0, 0.24, 0.26, 0.99],
    [0.25, 0.1],
  ];
  const drawn = drawSamples(groups, 0.25, (group) => numbers[group] ?? []);
  const kept = Math.fround(1 / 0.75);
  const scales = [...(drawn?.rowScale.dataSync() ?? [])];
  expect(scales).toEqual([0, 0, 0, 0, kept, kept, kept, kept, kept, 0]);
  // All rows take part.
  expect([drawn?.rows, drawn?.groups]).toEqual([undefined, groups]);
  tf.dispose(drawn?.rowScale as tf.Tensor);
  expect(tf.memory().numTensors).toBe(before);
  expect(drawSamples(groups, 0, () => [])).toBeUndefined();
});

test("by subset a fixed number of sequences takes part, each scaled up by what is missing", () => {
  const drawn = drawSubset(groups, 0.5, (group) => Int32Array.from(group === 0 ? [3, 0] : [1]));
  expect([...(drawn?.rows?.dataSync() ?? [])]).toEqual([6, 7, 0, 1, 9]);
  expect([...(drawn?.rowScale.dataSync() ?? [])]).toEqual([2, 2, 2, 2, 2]);
  expect(drawn?.groups.map(({ count }) => count)).toEqual([2, 1]);
  tf.dispose([drawn?.rows, drawn?.rowScale] as tf.Tensor[]);
});

test("draws are a function of seed, step, rank, block, branch and group; as many are kept as the rate says", () => {
  const numbers = (...[seed, step, of]: [number, number, typeof key]) =>
    drawUniformsOf(seed, step)(of, 5);
  expect(numbers(1, 2, key)).toEqual(numbers(1, 2, key));
  for (const change of [{ rank: 0 }, { block: 0 }, { branch: 1 }, { group: 1 }]) {
    expect(numbers(1, 2, { ...key, ...change } as typeof key)).not.toEqual(numbers(1, 2, key));
  }
  expect(numbers(2, 2, key)).not.toEqual(numbers(1, 2, key));
  expect(numbers(1, 3, key)).not.toEqual(numbers(1, 2, key));
  const many = [...(drawUniformsOf(1, 2)(key, 4000) as Float32Array)];
  // Four standard errors of a share of 0.3 in 4,000.
  const share = many.filter((u) => u < 0.3).length / many.length;
  expect(Math.abs(share - 0.3)).toBeLessThan(4 * Math.sqrt((0.3 * 0.7) / many.length));
  expect(new Set(chooseSequencesOf(1, 2)(key, 9, 4)).size).toBe(4);
});
