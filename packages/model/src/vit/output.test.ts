import { parseRunSpec } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { vitConfigOf } from "./config.js";
import { output, outputBackward } from "./output.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

const model = { width: 4, heads: 1 };
const spec = parseRunSpec({ steps: 1, batchPerRank: 2, data: { path: "unused" }, model });
const config = vitConfigOf(spec);
const parts = [
  { kind: "localCls", rows: [3, 1] },
  { kind: "cls", rows: [0] },
  { kind: "patch", rows: [2, 4] },
] as const;

/** Norms whose bias tells them apart and whose weight is 0, so that outputs are biases. */
function norms(biases: Readonly<Record<string, number>>): Record<string, tf.Tensor> {
  return Object.fromEntries(
    Object.entries(biases).flatMap(([name, bias]) => [
      [`backbone.${name}.weight`, tf.zeros([4])],
      [`backbone.${name}.bias`, tf.fill([4], bias)],
    ]),
  );
}

test.each([
  [{ norm: 1 }, [1, 1, 1, 1, 1]],
  [{ norm: 1, cls_norm: 2 }, [2, 2, 2, 1, 1]],
  [{ norm: 1, local_cls_norm: 3 }, [3, 3, 1, 1, 1]],
  [{ norm: 1, cls_norm: 2, local_cls_norm: 3 }, [3, 3, 2, 1, 1]],
])("tokens go through the norm of their kind: %j", (biases, expected) => {
  const before = tf.memory().numTensors;
  const tensors = norms(biases);
  const x = tf.randomNormal([6, 4]) as tf.Tensor2D;
  const { h, saved } = output(config, tensors, x, parts);
  expect([...h.dataSync()]).toEqual(expected.flatMap((value) => [value, value, value, value]));
  h.dispose();
  const dh = tf.ones<tf.Rank.R2>([5, 4]);
  const { dx, grads } = outputBackward(config, tensors, dh, saved);
  // The gradient of a bias counts the rows that went through its norm.
  for (const [name, bias] of Object.entries(biases)) {
    const rows = expected.filter((value) => value === bias).length;
    const gradient = grads[`backbone.${name}.bias`]?.dataSync();
    expect([...(gradient ?? [])], name).toEqual([rows, rows, rows, rows]);
  }
  tf.dispose([dx, x, ...Object.values(grads), ...Object.values(tensors)]);
  expect(tf.memory().numTensors).toBe(before);
});

test("a kind without rows needs no norm", () => {
  const tensors = norms({ norm: 1, cls_norm: 2 });
  const x = tf.randomNormal([6, 4]) as tf.Tensor2D;
  const { h, saved } = output(config, tensors, x, [
    { kind: "cls", rows: [0, 1] },
    { kind: "patch", rows: [] },
  ]);
  expect([...h.dataSync()]).toEqual(new Array(8).fill(2));
  const { dx, grads } = outputBackward(config, tensors, h, saved);
  expect(Object.keys(grads).sort()).toEqual(["backbone.cls_norm.bias", "backbone.cls_norm.weight"]);
  tf.dispose([dx, x, ...Object.values(grads), ...Object.values(tensors)]);
});
