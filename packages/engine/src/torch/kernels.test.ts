/** TF.js's kernels on `torch` against the same ops on TF.js's own wasm backend. */
import * as tf from "@tensorflow/tfjs-core";
import { describe, expect, test } from "vitest";
import { normals, relativeError } from "../testing/numbers.js";
import { skipReason, torchForTests } from "../testing/torch.js";
import { openWasm } from "../wasm.js";

// float32 rounding, and approximations of exp, erf and the like in both libraries.
const noise = 2e-5;

const float = (seed: number, ...shape: number[]) =>
  tf.tensor(Float32Array.from(normals(tf.util.sizeFromShape(shape), seed)), shape);
const image = (seed: number, ...shape: [number, number, number, number]) =>
  float(seed, ...shape) as tf.Tensor4D;
const ints = (values: number[], ...shape: number[]) => tf.tensor(values, shape, "int32");
const bools = (values: number[], ...shape: number[]) => tf.tensor(values, shape, "bool");
const x = () => float(1, 2, 3, 4);
const positive = () => tf.abs(float(2, 2, 3, 4));
const small = () => tf.mul(x(), 0.2);

type Op = () => tf.Tensor | tf.Tensor[];

const unary = [
  ...["abs", "acos", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "elu", "erf", "exp"],
  ...[
    "expm1",
    "floor",
    "isFinite",
    "isInf",
    "isNaN",
    "neg",
    "relu",
    "relu6",
    "reciprocal",
    "round",
  ],
  ...["selu", "sigmoid", "sign", "sin", "sinh", "softplus", "square", "tan", "tanh", "zerosLike"],
  ...["onesLike", "logSoftmax", "softmax"],
] as const;

const binary = [
  ...["add", "sub", "mul", "div", "maximum", "minimum", "squaredDifference", "atan2", "mod"],
  ...["greater", "greaterEqual", "less", "lessEqual", "equal", "notEqual"],
] as const;

const functions = tf as unknown as Record<string, (...inputs: tf.Tensor[]) => tf.Tensor>;
const call = (name: string, ...inputs: tf.Tensor[]): tf.Tensor =>
  functions[name]?.(...inputs) ?? tf.scalar(Number.NaN);

const ops: Record<string, Op> = {
  ...Object.fromEntries(unary.map((name) => [name, () => call(name, small())])),
  ...Object.fromEntries(
    binary.flatMap((name) => [
      [name, () => call(name, x(), float(3, 2, 3, 4))],
      [`${name} broadcast`, () => call(name, x(), float(3, 3, 1))],
      [`${name} int32`, () => call(name, ints([7, -7, 3, 4], 4), ints([2, 2, 3, -4], 4))],
    ]),
  ),
  log: () => tf.log(positive()),
  log1p: () => tf.log1p(positive()),
  sqrt: () => tf.sqrt(positive()),
  rsqrt: () => tf.rsqrt(positive()),
  acosh: () => tf.acosh(tf.add(positive(), 1)),
  pow: () => tf.pow(positive(), 1.7),
  floorDiv: () => tf.floorDiv(ints([7, -7, 3], 3), ints([2, 2, -2], 3)),
  logicalAnd: () => tf.logicalAnd(bools([0, 1, 0, 1], 4), bools([0, 0, 1, 1], 4)),
  logicalOr: () => tf.logicalOr(bools([0, 1, 0, 1], 4), bools([0, 0, 1, 1], 4)),
  logicalXor: () => tf.logicalXor(bools([0, 1, 0, 1], 4), bools([0, 0, 1, 1], 4)),
  logicalNot: () => tf.logicalNot(bools([0, 1], 2)),
  leakyRelu: () => tf.leakyRelu(x(), 0.1),
  prelu: () => tf.prelu(x(), float(4, 4)),
  clipByValue: () => tf.clipByValue(x(), -0.5, 0.7),
  step: () => tf.step(x(), 0.3),
  addN: () => tf.addN([x(), float(5, 2, 3, 4), float(6, 2, 3, 4)]),
  "where by element": () => tf.where(tf.greater(x(), 0), x(), float(7, 2, 3, 4)),
  "cast to int32": () => tf.cast(tf.mul(x(), 3), "int32"),
  "cast to bool": () => tf.cast(ints([0, 1], 2), "bool"),
  "cast to float32": () => tf.cast(bools([0, 1], 2), "float32"),

  matMul: () => tf.matMul(float(8, 5, 3), float(9, 3, 4)),
  "matMul transposed": () => tf.matMul(float(8, 3, 5), float(9, 4, 3), true, true),
  "matMul batched": () => tf.matMul(float(8, 2, 5, 3), float(9, 1, 3, 4)),
  "fused matMul": () =>
    tf.fused.matMul({
      a: float(8, 5, 3),
      b: float(9, 3, 4),
      bias: float(1, 4),
      activation: "relu",
    }),

  sum: () => tf.sum(x()),
  "sum by axis": () => tf.sum(x(), [0, 2]),
  "sum keeping axes": () => tf.sum(x(), -1, true),
  "sum int32": () => tf.sum(ints([1, 2, 3, 4], 2, 2), 0),
  "sum bool": () => tf.sum(bools([1, 0, 1], 3)),
  mean: () => tf.mean(x(), 1),
  max: () => tf.max(x(), [1, 2]),
  min: () => tf.min(x(), 0),
  prod: () => tf.prod(x(), [0, 1]),
  all: () => tf.all(bools([1, 0, 1, 1], 2, 2), 1),
  any: () => tf.any(bools([0, 0, 1, 0], 2, 2), 1),
  argMax: () => tf.argMax(x(), 1),
  argMin: () => tf.argMin(x(), -1),
  cumsum: () => tf.cumsum(x(), 1),
  "cumsum exclusive reverse": () => tf.cumsum(x(), 2, true, true),
  cumprod: () => tf.cumprod(x(), 1, true),
  logSumExp: () => tf.logSumExp(x(), 1),
  moments: () => Object.values(tf.moments(x(), 2)),
  norm: () => tf.norm(x(), 2, -1),

  reshape: () => tf.reshape(tf.transpose(x(), [2, 0, 1]), [6, -1]),
  transpose: () => tf.transpose(x(), [1, 2, 0]),
  expandDims: () => tf.expandDims(x(), -2),
  slice: () => tf.slice(x(), [0, 1, 1], [2, 1, -1]),
  stridedSlice: () => tf.stridedSlice(x(), [0, 2, 3], [2, -4, 0], [1, -1, -2]),
  concat: () => tf.concat([x(), float(5, 2, 1, 4)], 1),
  stack: () => tf.stack([x(), float(5, 2, 3, 4)], 2),
  unstack: () => tf.unstack(x(), 1),
  split: () => tf.split(x(), [1, 3], 2),
  tile: () => tf.tile(x(), [1, 2, 2]),
  broadcastTo: () => tf.broadcastTo(float(5, 3, 1), [2, 3, 4]),
  reverse: () => tf.reverse(x(), [0, 2]),
  pad: () =>
    tf.pad(
      x(),
      [
        [0, 1],
        [2, 0],
        [1, 1],
      ],
      0.5,
    ),
  mirrorPad: () =>
    tf.mirrorPad(
      x(),
      [
        [1, 1],
        [2, 0],
        [0, 3],
      ],
      "reflect",
    ),
  "mirrorPad symmetric": () =>
    tf.mirrorPad(
      x(),
      [
        [1, 1],
        [2, 0],
        [0, 3],
      ],
      "symmetric",
    ),
  fill: () => tf.fill([2, 2], 7, "int32"),
  range: () => tf.range(3, -4, -2),
  linspace: () => tf.linspace(0, 1, 7),

  gather: () => tf.gather(x(), ints([2, 0, 1, 2], 2, 2), 1),
  "gather batched": () => tf.gather(x(), ints([2, 0, 1, 2], 2, 2), 1, 1),
  gatherND: () => tf.gatherND(x(), ints([0, 2, 1, 1], 2, 2)),
  scatterND: () => tf.scatterND(ints([2, 0, 2], 3, 1), float(5, 3, 2), [4, 2]),
  oneHot: () => tf.oneHot(ints([0, 2, 5], 3), 4, 2, -1),
  topk: () => {
    const { values, indices } = tf.topk(
      tf.tensor2d([
        [1, 3, 3, 2],
        [4, 0, 4, 4],
      ]),
      3,
    );
    return [values, indices];
  },
  depthToSpace: () => tf.depthToSpace(image(5, 1, 2, 2, 8), 2),
  batchToSpaceND: () =>
    tf.batchToSpaceND(
      image(5, 4, 2, 2, 1),
      [2, 2],
      [
        [0, 1],
        [1, 0],
      ],
    ),
  spaceToBatchND: () =>
    tf.spaceToBatchND(
      image(5, 1, 4, 3, 1),
      [2, 2],
      [
        [0, 0],
        [1, 0],
      ],
    ),

  "conv2d valid": () => tf.conv2d(image(5, 2, 6, 5, 3), image(6, 3, 2, 3, 4), 1, "valid"),
  "conv2d same strided": () => tf.conv2d(image(5, 2, 6, 5, 3), image(6, 3, 2, 3, 4), 2, "same"),
  "conv2d dilated": () =>
    tf.conv2d(image(5, 2, 7, 7, 3), image(6, 3, 2, 3, 4), 1, "same", "NHWC", 2),
  depthwiseConv2d: () => tf.depthwiseConv2d(image(5, 1, 5, 5, 3), image(6, 2, 2, 3, 2), 1, "same"),
  conv2dTranspose: () =>
    tf.conv2dTranspose(image(5, 1, 3, 3, 4), image(6, 2, 2, 3, 4), [1, 6, 6, 3], 2, "same"),
  avgPool: () => tf.avgPool(image(5, 1, 5, 5, 3), 3, 2, "same"),
  maxPool: () => tf.maxPool(image(5, 1, 5, 5, 3), [2, 3], 2, "same"),
  resizeBilinear: () => tf.image.resizeBilinear(image(5, 1, 4, 5, 3), [7, 3]),
  "resizeBilinear corners": () => tf.image.resizeBilinear(image(5, 1, 4, 5, 3), [7, 3], true),
  "resizeBilinear centers": () =>
    tf.image.resizeBilinear(image(5, 1, 4, 5, 3), [7, 3], false, true),
  resizeNearest: () => tf.image.resizeNearestNeighbor(image(5, 1, 4, 5, 3), [7, 3]),
  batchNorm: () => tf.batchNorm(x(), float(1, 4), tf.abs(float(2, 4)), float(3, 4), float(4, 4)),
};

/** Kernels that wasm lacks, by value. */
const known: Record<string, readonly [Op, number[]]> = {
  "unsorted segment sum": [
    () =>
      tf.unsortedSegmentSum(
        tf.tensor2d([
          [1, 2],
          [3, 4],
          [5, 6],
        ]),
        ints([1, 0, 1], 3) as tf.Tensor1D,
        3,
      ),
    [3, 4, 6, 8, 0, 0],
  ],
  einsum: [
    () =>
      tf.einsum(
        "ij,kj->ik",
        tf.tensor2d([
          [1, 2],
          [3, 4],
        ]),
        tf.tensor2d([
          [1, 0],
          [1, 1],
        ]),
      ),
    [1, 3, 3, 7],
  ],
  searchSorted: [() => tf.searchSorted(tf.tensor1d([0, 2, 4]), tf.tensor1d([1, 2, 5])), [1, 1, 3]],
  bincount: [
    () => tf.bincount(ints([1, 1, 3], 3) as tf.Tensor1D, tf.tensor1d([]), 4),
    [0, 2, 0, 1],
  ],
  "cast to bool": [() => tf.cast(ints([0, 2, -1], 3), "bool"), [0, 1, 1]],
  diag: [() => tf.diag(tf.tensor1d([1, 2])), [1, 0, 0, 2]],
};

interface Result {
  readonly shape: number[];
  readonly dtype: string;
  readonly values: number[];
}

function evaluate(op: Op): Result[] {
  const before = tf.memory().numTensors;
  const results = tf.tidy(op as () => tf.Tensor[]);
  const list = (Array.isArray(results) ? results : [results]) as tf.Tensor[];
  const read = list.map((t) => ({ shape: t.shape, dtype: t.dtype, values: [...t.dataSync()] }));
  tf.dispose(list);
  expect(tf.memory().numTensors).toBe(before);
  return read;
}

describe.skipIf(skipReason)(`kernels ${skipReason ?? ""}`, async () => {
  if (skipReason !== undefined) return;
  await openWasm();
  const expected = new Map(Object.entries(ops).map(([name, op]) => [name, evaluate(op)]));
  const engine = await torchForTests();

  for (const [name, op] of Object.entries(ops)) {
    test(`${name} equals wasm's`, () => {
      const wanted = expected.get(name) ?? [];
      const native = engine?.memory();
      const actual = evaluate(op);
      expect(engine?.memory()).toEqual(native);
      expect(actual.map(({ shape, dtype }) => ({ shape, dtype }))).toEqual(
        wanted.map(({ shape, dtype }) => ({ shape, dtype })),
      );
      for (const [i, { values }] of actual.entries()) {
        expect(relativeError(values, wanted[i]?.values ?? [])).toBeLessThan(noise);
      }
    });
  }

  for (const [name, [op, values]] of Object.entries(known)) {
    test(`${name} is right`, () => expect(evaluate(op)[0]?.values).toEqual(values));
  }

  test("a tensor made on another backend moves here when it is used", async () => {
    await tf.setBackend("wasm");
    const elsewhere = tf.tensor1d([1, 2]);
    await tf.setBackend("torch");
    const sum = tf.add(elsewhere, 1);
    expect([...sum.dataSync()]).toEqual([2, 3]);
    tf.dispose([elsewhere, sum]);
  });
});
