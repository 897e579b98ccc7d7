import { rngOf } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { applyBatchNorm, batchNormLayer, runningStatistics } from "./batch-norm.js";
import { headOf, headScores } from "./head.js";
import { headLoss, type ScoreTargets } from "./loss.js";
import { scoreBound } from "./prototypes.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

function random(shape: number[], key: number, scale = 1): tf.Tensor {
  const rng = rngOf(5, key);
  const size = shape.reduce((product, side) => product * side, 1);
  return tf.tensor(
    Float32Array.from({ length: size }, () => scale * rng.normal()),
    shape,
  );
}

/** Two layers, 6 to 8 to 4 features, 5 prototypes. */
function parameters(form: { linear?: boolean; batchNorm?: boolean; scale?: number }) {
  const [second, norm] = form.batchNorm ? ["mlp.3", "mlp.1"] : ["mlp.2", undefined];
  const last = form.linear
    ? { "h.last_layer.weight": random([5, 4], 3, form.scale) }
    : { "h.last_layer.weight_g": random([5, 1], 4), "h.last_layer.weight_v": random([5, 4], 5) };
  return {
    "h.mlp.0.weight": random([8, 6], 1),
    "h.mlp.0.bias": random([8], 6),
    [`h.${second}.weight`]: random([4, 8], 2),
    ...(norm ? { [`h.${norm}.weight`]: random([8], 7), [`h.${norm}.bias`]: random([8], 8) } : {}),
    ...last,
  };
}

function targets(rows: number): ScoreTargets {
  const index = Int32Array.from({ length: rows }, (_, row) => row);
  const target = tf.tidy(() => tf.softmax(random([rows, 5], 9)) as tf.Tensor2D);
  return { count: rows, target, index, weight: new Float32Array(rows).fill(1 / rows) };
}

test("a frozen magnitude gets no gradient, and nothing else changes", () => {
  const tensors = parameters({});
  const before = tf.memory().numTensors;
  const x = random([7, 6], 10) as tf.Tensor2D;
  const run = targets(7);
  const [free, frozen] = [false, true].map((freezeMagnitude) => {
    const { grads, dh, rows } = headLoss(headOf(tensors, "h", { freezeMagnitude }), x, [run], 0.1);
    const values = Object.entries(grads).map(([name, grad]) => [name, [...grad.dataSync()]]);
    tf.dispose([dh, ...rows, ...Object.values(grads)] as tf.Tensor[]);
    return Object.fromEntries(values) as Record<string, number[]>;
  });
  tf.dispose([x, run.target]);
  expect(tf.memory().numTensors).toBe(before);
  const { "h.last_layer.weight_g": magnitude, ...others } = free as Record<string, number[]>;
  expect(magnitude?.some((value) => value !== 0)).toBe(true);
  expect(frozen).toEqual(others);
});

test("no score is larger than the bound, which some score reaches", async () => {
  for (const form of [{}, { linear: true, scale: 50 }]) {
    const head = headOf(parameters(form), "h");
    const bound = await scoreBound(head.prototypes);
    const scores = headScores(head, random([400, 6], 11) as tf.Tensor2D);
    const largest = tf.max(tf.abs(scores)).dataSync()[0] as number;
    expect(largest).toBeLessThanOrEqual(bound * (1 + 1e-6));
    expect(largest).toBeGreaterThan(0.8 * bound);
  }
});

test("batch norm makes mean 0 and variance 1 of each column, then scales and shifts it", () => {
  const tensors = { "n.weight": tf.tensor1d([2, 3]), "n.bias": tf.tensor1d([-1, 5]) };
  const layer = batchNormLayer(tensors, "n");
  const x = tf.tensor2d([1, 10, 2, 30, 6, 20], [3, 2]);
  if (!layer) throw new Error("a vector named weight is a norm");
  const { y } = applyBatchNorm(layer, x);
  const { mean, variance } = tf.moments(y, 0);
  expect([...mean.dataSync()].map((value) => Math.round(value * 1e4) / 1e4)).toEqual([-1, 5]);
  for (const [c, expected] of [4, 9].entries()) {
    expect(variance.dataSync()[c]).toBeCloseTo(expected, 3);
  }
  expect(batchNormLayer({ "n.weight": tf.zeros([2, 2]) }, "n")).toBeUndefined();
});

test("running statistics move a tenth of the way, with the unbiased variance", () => {
  const before = { mean: tf.tensor1d([0]), variance: tf.tensor1d([1]) };
  const after = runningStatistics(before, tf.tensor2d([1, 2, 6], [3, 1]));
  expect(after.mean.dataSync()[0]).toBeCloseTo(0.3, 6);
  expect(after.variance.dataSync()[0]).toBeCloseTo(0.9 + 0.1 * 7, 6);
});

test("a step's batch norm is over the rows it is given: a row's scores depend on the others", () => {
  const head = headOf(parameters({ batchNorm: true }), "h");
  const x = random([6, 6], 12) as tf.Tensor2D;
  const scores = (rows: tf.Tensor2D) => [...headScores(head, rows).dataSync()].slice(0, 5);
  expect(scores(x)).not.toEqual(scores(tf.slice(x, 0, 3)));
  const plain = headOf(parameters({}), "h");
  const plainScores = (rows: tf.Tensor2D) => headScores(plain, rows).dataSync()[0];
  expect(plainScores(x)).toBeCloseTo(plainScores(tf.slice(x, 0, 3)) as number, 5);
});
