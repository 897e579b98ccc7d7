/** What rotation in bfloat16 rounds; values and gradients of rotation in float32 are in ops.test.ts. */
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import { roundToBfloat16 } from "./bfloat16.js";
import { rotate } from "./rope.js";

test("rotation in bfloat16 rounds operands and results, cls rows too, but not v", async () => {
  await tf.setBackend("wasm");
  const before = tf.memory().numTensors;
  const values = Array.from({ length: 12 }, (_, i) => 1 + i / 1000);
  const cos = tf.tensor2d([[0.5]]);
  const rows = { cos, sin: tf.tensor2d([[0.25]]), prefix: 1, dtype: "bf16" } as const;
  const shape = { numHeads: 1, groups: [{ count: 1, length: 2 }] };
  const y = rotate(tf.tensor2d(values, [2, 6]), rows, shape);
  // bfloat16 has steps of 2^-7 from 1 on and of 2^-9 from 0.25 on. The second row's q is 1.006, 1.007 and its k 1.008, 1.009: all 1 + 2^-7.
  const step = 2 ** -7;
  const q = [0.25 + step / 4, 0.75 + 0.75 * step].map(roundToBfloat16);
  const v = [1.004, 1.005, 1.01, 1.011].map(Math.fround);
  const [first = 0, second = 0, third = 0, fourth = 0] = v;
  const cls = [1, 1, 1, 1];
  expect([...y.dataSync()]).toEqual([...cls, first, second, ...q, ...q, third, fourth]);
  tf.dispose([y, rows.cos, rows.sin]);
  expect(tf.memory().numTensors).toBe(before);
});

test("bfloat16 rounds to the nearest, ties to even", () => {
  const pairs = [
    [1 + 2 ** -8, 1],
    [1 + 3 * 2 ** -8, 1 + 2 ** -6],
    [1 + 2 ** -8 + 2 ** -20, 1 + 2 ** -7],
    [-(1 + 2 ** -8 + 2 ** -20), -(1 + 2 ** -7)],
    [3.4e38, Number.POSITIVE_INFINITY],
    [0, 0],
  ] as const;
  for (const [x, rounded] of pairs) expect(roundToBfloat16(x)).toBe(rounded);
  expect(roundToBfloat16(Number.NaN)).toBeNaN();
});
