/** Every op against a plain double-precision reference: values directly, gradients by central differences of the reference. */
import { rngOf } from "@paddock/contract";
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, describe, expect, test } from "vitest";
import { attention, attentionBackward } from "./attention.js";
import { batchMatMul } from "./batch-mat-mul.js";
import { roundToBfloat16 } from "./bfloat16.js";
import { crossEntropy } from "./cross-entropy.js";
import { gelu, geluBackward } from "./gelu.js";
import { l2Normalize, l2NormalizeBackward } from "./l2-normalize.js";
import { layerNorm, layerNormBackward } from "./layer-norm.js";
import { linear, linearBackward } from "./linear.js";
import { rmsNorm, rmsNormBackward } from "./rms-norm.js";
import { rotate, rotateBackward } from "./rope.js";
import { gatherRows, scatterAddRows } from "./rows.js";
import { scaledAdd, scaledAddBackward } from "./scaled-add.js";
import { swiglu, swigluBackward } from "./swiglu.js";
import { weightNorm, weightNormBackward } from "./weight-norm.js";

/** Rows of doubles; vectors are one row. */
type Matrix = number[][];
type Inputs = Record<string, Matrix>;
type T1 = tf.Tensor1D;
type T2 = tf.Tensor2D;

interface Case {
  readonly name: string;
  readonly inputs: Inputs;
  /** In doubles. */
  reference(inputs: Inputs): Matrix;
  forward(x: Tensors): tf.Tensor;
  /** Gradients by input name for the cotangent dy. */
  backward(x: Tensors, dy: T2): Record<string, tf.Tensor | undefined>;
}

/** Inputs as tensors: as a matrix, or as a vector. */
interface Tensors {
  m(name: string): T2;
  v(name: string): T1;
}

const rng = rngOf(7);
const random = (rows: number, columns: number): Matrix =>
  Array.from({ length: rows }, () => Array.from({ length: columns }, () => rng.normal()));

const groups = [
  { count: 2, length: 3 },
  { count: 1, length: 2 },
];
const rows = [4, 0, 2];
const rowScale = [2, 0.5, 1.5];
const target = random(4, 6).map((row) => softmax(row));
const index = [3, 0, 0];
const weight = [0.5, 2, 1];
const int32 = (values: number[]) => tf.tensor1d(values, "int32");

const cases: Case[] = [
  {
    name: "linear",
    inputs: { x: random(5, 3), w: random(4, 3), bias: random(1, 4) },
    reference: ({ x = [], w = [], bias = [] }) =>
      x.map((row) => w.map((weights, o) => dot(row, weights) + at(bias, 0, o))),
    forward: (x) => linear(x.m("x"), x.m("w"), x.v("bias")),
    backward(x, dy) {
      const { dx, dw, db } = linearBackward(dy, x.m("x"), x.m("w"), {
        needDx: true,
        hasBias: true,
      });
      return { x: dx, w: dw, bias: db };
    },
  },
  {
    name: "GELU",
    inputs: { x: random(4, 5).map((row) => row.map((value) => 3 * value)) },
    reference: ({ x = [] }) => x.map((row) => row.map((v) => 0.5 * v * (1 + erf(v / Math.SQRT2)))),
    forward: (x) => gelu(x.m("x")),
    backward: (x, dy) => ({ x: geluBackward(dy, x.m("x")) }),
  },
  {
    name: "layer norm",
    inputs: { x: random(5, 6), gamma: random(1, 6), beta: random(1, 6) },
    reference: ({ x = [], gamma = [], beta = [] }) =>
      x.map((row) => {
        const mean = sum(row) / row.length;
        const variance = sum(row.map((v) => (v - mean) ** 2)) / row.length;
        return row.map(
          (v, c) => ((v - mean) / Math.sqrt(variance + 1e-6)) * at(gamma, 0, c) + at(beta, 0, c),
        );
      }),
    forward: (x) => layerNorm(x.m("x"), x.v("gamma"), x.v("beta"), 1e-6).y,
    backward(x, dy) {
      const stats = layerNorm(x.m("x"), x.v("gamma"), x.v("beta"), 1e-6);
      const { dx, dgamma, dbeta } = layerNormBackward(dy, x.m("x"), stats, x.v("gamma"));
      return { x: dx, gamma: dgamma, beta: dbeta };
    },
  },
  {
    name: "RMS norm",
    inputs: { x: random(5, 6), gamma: random(1, 6) },
    reference: ({ x = [], gamma = [] }) =>
      x.map((row) => {
        const square = sum(row.map((v) => v * v)) / row.length;
        return row.map((v, c) => (v / Math.sqrt(square + 1e-2)) * at(gamma, 0, c));
      }),
    forward: (x) => rmsNorm(x.m("x"), x.v("gamma"), 1e-2).y,
    backward(x, dy) {
      const { rstd } = rmsNorm(x.m("x"), x.v("gamma"), 1e-2);
      const { dx, dgamma } = rmsNormBackward(dy, x.m("x"), rstd, x.v("gamma"));
      return { x: dx, gamma: dgamma };
    },
  },
  {
    name: "rotary positions",
    inputs: { qkv: random(8, 24) },
    reference: ({ qkv = [] }) => rotated(qkv, 2),
    forward: (x) => rotate(x.m("qkv"), rotation(), { numHeads: 2, groups }),
    backward: (_x, dy) => ({ qkv: rotateBackward(dy, rotation(), { numHeads: 2, groups }) }),
  },
  {
    name: "attention inside each of the packed sequences",
    inputs: { qkv: random(8, 12) },
    reference: ({ qkv = [] }) => attend(qkv, 2),
    forward: (x) => attention(x.m("qkv"), { numHeads: 2, groups }).out,
    backward(x, dy) {
      const shape = { numHeads: 2, groups };
      const output = attention(x.m("qkv"), shape);
      return { qkv: attentionBackward(dy, x.m("qkv"), output, shape) };
    },
  },
  {
    name: "SwiGLU",
    inputs: { x: random(4, 6) },
    reference: ({ x = [] }) =>
      x.map((row) =>
        row.slice(0, 3).map((a, c) => (a / (1 + Math.exp(-a))) * (row[3 + c] as number)),
      ),
    forward: (x) => swiglu(x.m("x")),
    backward: (x, dy) => ({ x: swigluBackward(dy, x.m("x")) }),
  },
  {
    name: "scaled residual on all rows",
    inputs: { x: random(5, 3), r: random(5, 3), gamma: random(1, 3) },
    reference: ({ x = [], r = [], gamma = [] }) =>
      x.map((row, i) => row.map((v, c) => v + at(r, i, c) * at(gamma, 0, c))),
    forward: (x) => scaledAdd(x.m("x"), x.m("r"), { gamma: x.v("gamma") }),
    backward(x, dy) {
      const { dr, dgamma } = scaledAddBackward(dy, x.m("r"), { gamma: x.v("gamma") });
      return { r: dr, gamma: dgamma };
    },
  },
  {
    name: "scaled residual on chosen rows",
    inputs: { x: random(5, 3), r: random(3, 3), gamma: random(1, 3) },
    reference({ x = [], r = [], gamma = [] }) {
      const y = x.map((row) => [...row]);
      for (const [s, row] of rows.entries()) {
        const into = y[row] as number[];
        for (const c of into.keys()) {
          into[c] = at(x, row, c) + (rowScale[s] as number) * at(r, s, c) * at(gamma, 0, c);
        }
      }
      return y;
    },
    forward: (x) => scaledAdd(x.m("x"), x.m("r"), chosen(x)),
    backward(x, dy) {
      const { dr, dgamma } = scaledAddBackward(dy, x.m("r"), chosen(x));
      return { r: dr, gamma: dgamma };
    },
  },
  {
    name: "gathered rows",
    inputs: { x: random(5, 3) },
    reference: ({ x = [] }) => rows.map((row) => x[row] as number[]),
    forward: (x) => gatherRows(x.m("x"), int32(rows)),
    backward: (x, dy) => ({ x: scatterAddRows(tf.zerosLike(x.m("x")), dy, int32(rows)) }),
  },
  {
    name: "rows added, some of them twice",
    inputs: { x: random(3, 2), r: random(3, 2) },
    reference({ x = [], r = [] }) {
      const y = x.map((row) => [...row]);
      for (const [s, row] of [1, 1, 0].entries()) {
        const into = y[row] as number[];
        for (const c of into.keys()) into[c] = (into[c] as number) + at(r, s, c);
      }
      return y;
    },
    forward: (x) => scatterAddRows(x.m("x"), x.m("r"), int32([1, 1, 0])),
    backward: (_x, dy) => ({ x: dy, r: gatherRows(dy, int32([1, 1, 0])) }),
  },
  {
    name: "L2 norm",
    inputs: { x: random(4, 5) },
    reference: ({ x = [] }) => x.map((row) => row.map((v) => v / Math.hypot(...row))),
    forward: (x) => l2Normalize(x.m("x"), 1e-12).y,
    backward: (x, dy) => ({ x: l2NormalizeBackward(dy, l2Normalize(x.m("x"), 1e-12)) }),
  },
  {
    name: "weight norm",
    inputs: { g: random(4, 1), v: random(4, 5) },
    reference: ({ g = [], v = [] }) =>
      v.map((row, k) => row.map((value) => (at(g, k, 0) * value) / Math.hypot(...row))),
    forward: (x) => weightNorm(x.m("g"), x.m("v")).w,
    backward(x, dy) {
      const { direction } = weightNorm(x.m("g"), x.m("v"));
      const { dg, dv } = weightNormBackward(dy, x.m("g"), direction);
      return { g: dg, v: dv };
    },
  },
  {
    name: "cross-entropy",
    inputs: { logits: random(3, 6) },
    reference: ({ logits = [] }) => [
      logits.map((row, n) => {
        const p = softmax(row.map((v) => v / 0.3));
        const goal = target[index[n] as number] as number[];
        return -(weight[n] as number) * sum(goal.map((t, k) => t * Math.log(p[k] as number)));
      }),
    ],
    forward: (x) => entropy(x).rows,
    backward: (x, dy) => ({ logits: tf.mul(entropy(x).dlogits, tf.reshape(dy, [-1, 1])) }),
  },
];

describe.each(["wasm", "cpu"])("on %s", (backend) => {
  beforeAll(async () => {
    await tf.setBackend(backend);
  });

  test.each(cases)("$name: values and gradients, and no tensor left over", (one) => {
    const before = tf.memory().numTensors;
    const expected = one.reference(one.inputs).flat();
    const cotangent = expected.map(() => rng.normal());
    tf.tidy(() => {
      const x = tensorsOf(one.inputs);
      const y = one.forward(x);
      close(y.dataSync(), expected);
      const columns = y.shape.length === 1 ? y.size : (y.shape[1] as number);
      const grads = one.backward(x, tf.tensor2d(cotangent, [y.size / columns, columns]));
      for (const [name, gradient] of Object.entries(grads)) {
        close(gradient?.dataSync() ?? [], differences(one, name, cotangent));
      }
    });
    expect(tf.memory().numTensors).toBe(before);
  });

  test("a batch of products is the same whether or not they are looped over", () => {
    for (const [m, k, n] of [
      [3, 4, 5],
      [40, 40, 41],
    ] as const) {
      const [a, c] = [tf.randomNormal([3, m, k]), tf.randomNormal([3, k, n])] as [
        tf.Tensor3D,
        tf.Tensor3D,
      ];
      const [ours, plain] = [batchMatMul(a, c), tf.matMul(a, c)];
      close(ours.dataSync(), plain.dataSync(), 1e-4);
      tf.dispose([a, c, ours, plain]);
    }
  });
});

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

test("a row of zeros is normalised to zeros", async () => {
  await tf.setBackend("wasm");
  const { y, norm } = l2Normalize(tf.zeros([1, 3]), 1e-12);
  expect([...y.dataSync()]).toEqual([0, 0, 0]);
  expect(norm.dataSync()[0]).toBeCloseTo(1e-12, 18);
});

function tensorsOf(inputs: Inputs): Tensors {
  return {
    m: (name) => tf.tensor2d(inputs[name] as Matrix),
    v: (name) => tf.tensor1d((inputs[name] as Matrix).flat()),
  };
}

function chosen(x: Tensors) {
  return { gamma: x.v("gamma"), rows: int32(rows), rowScale: tf.tensor1d(rowScale) };
}

function entropy(x: Tensors) {
  const goal = { target: tf.tensor2d(target), index: int32(index), weight: tf.tensor1d(weight) };
  return crossEntropy({ logits: x.m("logits"), ...goal }, 0.3);
}

/** d <reference, cotangent> / d input, by central differences. */
function differences(one: Case, name: string, cotangent: readonly number[]): number[] {
  const step = 1e-5;
  const input = one.inputs[name] as Matrix;
  const valueAt = (i: number, c: number, change: number): number => {
    const moved = input.map((row) => [...row]);
    (moved[i] as number[])[c] = at(input, i, c) + change;
    return dot(one.reference({ ...one.inputs, [name]: moved }).flat(), cotangent);
  };
  return input.flatMap((row, i) =>
    row.map((_, c) => (valueAt(i, c, step) - valueAt(i, c, -step)) / (2 * step)),
  );
}

/** fp32 against doubles: a few units in the last place of the largest value. */
function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 3e-6): void {
  const wanted = Array.from(expected);
  expect(actual.length).toBe(wanted.length);
  const allowed = tolerance * Math.max(1, ...wanted.map(Math.abs));
  for (const [i, value] of wanted.entries()) {
    expect(Math.abs((actual[i] as number) - value), `element ${i}`).toBeLessThan(allowed);
  }
}

/** Angles of the positions of both groups, one cls row in front of each sequence: two positions, then one; two planes a head. */
const angles = [
  [0.3, -1.2],
  [2.5, 0.7],
  [-0.4, 4],
];

function rotation() {
  const table = (of: (x: number) => number) => tf.tensor2d(angles.map((row) => row.map(of)));
  return { cos: table(Math.cos), sin: table(Math.sin), prefix: 1, dtype: "fp32" } as const;
}

/** Features i and i + 2 of each head of q and k, as a complex number, times exp(angle i). */
function rotated(qkv: Matrix, heads: number): Matrix {
  const positions = [-1, 0, 1, -1, 0, 1, -1, 2];
  return qkv.map((row, t) => {
    const turn = angles[positions[t] as number];
    const y = [...row];
    for (let h = 0; turn && h < 2 * heads; h++) {
      for (const [i, angle] of turn.entries()) {
        const [real, imaginary] = [row[4 * h + i] as number, row[4 * h + 2 + i] as number];
        const [r, phase] = [Math.hypot(real, imaginary), Math.atan2(imaginary, real)];
        y[4 * h + i] = r * Math.cos(phase + angle);
        y[4 * h + 2 + i] = r * Math.sin(phase + angle);
      }
    }
    return y;
  });
}

/** Attention over the packed sequences of `groups`, head by head. */
function attend(qkv: Matrix, heads: number): Matrix {
  const width = (qkv[0] as number[]).length / 3;
  const d = width / heads;
  const out: Matrix = qkv.map(() => new Array<number>(width).fill(0));
  let start = 0;
  for (const length of groups.flatMap(({ count, length }) =>
    new Array<number>(count).fill(length),
  )) {
    const sequence = Array.from({ length }, (_, i) => start + i);
    for (let h = 0; h < heads; h++) {
      const part = (row: number, which: number) =>
        (qkv[row] as number[]).slice(which * width + h * d, which * width + (h + 1) * d);
      for (const i of sequence) {
        const p = softmax(sequence.map((j) => dot(part(i, 0), part(j, 1)) / Math.sqrt(d)));
        for (let c = 0; c < d; c++) {
          const values = sequence.map((j) => part(j, 2)[c] as number);
          (out[i] as number[])[h * d + c] = dot(p, values);
        }
      }
    }
    start += length;
  }
  return out;
}

function softmax(row: readonly number[]): number[] {
  const exp = row.map((value) => Math.exp(value - Math.max(...row)));
  return exp.map((value) => value / sum(exp));
}

/** Its Taylor series: 1e-8 in doubles, as cancellation grows with x; beyond 4 it is 1 to 2e-8. */
function erf(x: number): number {
  let term = x;
  let total = x;
  for (let n = 1; n < 200; n++) {
    term *= (-x * x) / n;
    total += term / (2 * n + 1);
  }
  return Math.abs(x) > 4 ? Math.sign(x) : (2 / Math.sqrt(Math.PI)) * total;
}

function at(matrix: Matrix, row: number, column: number): number {
  return (matrix[row] as number[])[column] as number;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

function dot(a: readonly number[], b: readonly number[]): number {
  return sum(a.map((value, i) => value * (b[i] as number)));
}
