/**
 * Every op of the model's op layer with its gradient: one row each. Sizes are such that vector units have a remainder, sums have more
 * than one block (64 rows), and sequences have two lengths. Rows T, S, M, N; features C, I, O, K.
 */
import type { Parameter, Unit } from "@paddock/contract";
import {
  attention,
  attentionBackward,
  type DenseLayer,
  flatGradient,
  gatherRows,
  gelu,
  geluBackward,
  l2Normalize,
  l2NormalizeBackward,
  layerNorm,
  layerNormBackward,
  linear,
  linearBackward,
  maskRows,
  maskRowsBackward,
  mlp,
  mlpBackward,
  rotate,
  rotateBackward,
  scaledAdd,
  scaledAddBackward,
  scatterAddRows,
  sequenceRows,
  sequenceRowsBackward,
  swiglu,
  swigluBackward,
  viewUnit,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { objectiveCases } from "./objective-cases.js";
import type { OpCase, OpInputs } from "./op-case.js";
import type { Roundings } from "./rounding.js";

const [T, S, C, O] = [131, 70, 37, 29];
const [heads, headDim] = [3, 12];
const width = heads * headDim;
const shape = {
  numHeads: heads,
  groups: [
    { count: 2, length: 65 }, // long enough for wasm's loop over single products
    { count: 3, length: 8 },
  ],
};
const longest = 65;
const packed = 2 * 65 + 3 * 8;
/** Lengths below, at and above what the torch engine's own loops take, with and without a remainder; heads are whole vectors. */
const short = {
  numHeads: 2,
  groups: [
    { count: 3, length: 5 },
    { count: 2, length: 17 },
    { count: 1, length: 64 },
    { count: 1, length: 66 },
  ],
};
const [shortRows, shortWidth] = [3 * 5 + 2 * 17 + 64 + 66, 2 * 24];
/** Different rows, and one of them three times. */
const chosen = Array.from({ length: S }, (_, i) => (i * 7) % T);
const repeated = chosen.with(3, 5).with(69, 5).with(40, 5);
const int32 = (values: readonly number[]) => tf.tensor1d([...values], "int32");

const exact: Roundings = { terms: 0, operations: 0 };

/** Three parameters with gaps between them; b has no gradient. */
const unit: Unit = {
  name: "unit",
  submodule: "backbone",
  elements: O * C + 40 + C + 19,
  parameters: [
    parameter("a", 0, [O, C]),
    parameter("b", O * C + 3, [2, 1, 5]),
    parameter("c", O * C + 40, [C]),
  ],
};

function parameter(name: string, offset: number, shape: readonly number[]): Parameter {
  const elements = shape.reduce((a, b) => a * b);
  return {
    name,
    offset,
    shape,
    elements,
    lrMultiplier: 1,
    wdMultiplier: 1,
    trainable: true,
    isLastLayer: false,
  };
}

export const opCases: readonly OpCase[] = [
  {
    name: "linear",
    kernels: ["PaddockLinear", "PaddockLinearBackward"],
    inputs: { x: [T, C], w: [O, C], bias: [O], dy: [T, O] },
    roundings: { terms: T, operations: 1 },
    run(x) {
      const options = { needDx: true, hasBias: true };
      const { dw, db, dx } = linearBackward(x.m("dy"), x.m("x"), x.m("w"), options);
      return { y: linear(x.m("x"), x.m("w"), x.v("bias")), dw, db, dx };
    },
  },
  {
    name: "linear without bias, without dx",
    kernels: ["PaddockLinear", "PaddockLinearBackward"],
    inputs: { x: [T, C], w: [O, C], dy: [T, O] },
    roundings: { terms: T, operations: 0 },
    run(x) {
      const options = { needDx: false, hasBias: false };
      const { dw, db, dx } = linearBackward(x.m("dy"), x.m("x"), x.m("w"), options);
      return { y: linear(x.m("x"), x.m("w")), dw, db, dx };
    },
  },
  {
    name: "GELU",
    kernels: ["PaddockGelu", "PaddockGeluBackward"],
    inputs: { x: [T, C], dy: [T, C] },
    roundings: { terms: 0, operations: 9 }, // exp, erf, 3 products, a sum
    run: (x) => ({ y: gelu(x.m("x")), dx: geluBackward(x.m("dy"), x.m("x")) }),
  },
  {
    name: "layer norm",
    kernels: ["PaddockLayerNorm", "PaddockLayerNormBackward"],
    inputs: { x: [T, C], gamma: [C], beta: [C], dy: [T, C] },
    roundings: { terms: C + C + T, operations: 8 }, // mean, variance, sums over rows; root, quotient, 3 products
    run(x) {
      const output = layerNorm(x.m("x"), x.v("gamma"), x.v("beta"), 1e-6);
      return { ...output, ...layerNormBackward(x.m("dy"), x.m("x"), output, x.v("gamma")) };
    },
  },
  {
    name: "attention inside each of the packed sequences",
    kernels: ["PaddockAttention", "PaddockAttentionBackward"],
    inputs: { qkv: [packed, 3 * width], dy: [packed, width] },
    // Scores, softmax, dp, products with dscores; exp, a quotient, 3 products.
    roundings: { terms: 2 * headDim + 2 * longest, operations: 9 },
    run(x) {
      const output = attention(x.m("qkv"), shape);
      // lse is left out: its order is the engine's own, and dqkv is made from it
      return { y: output.out, dqkv: attentionBackward(x.m("dy"), x.m("qkv"), output, shape) };
    },
  },
  {
    name: "attention inside short sequences",
    kernels: ["PaddockAttention", "PaddockAttentionBackward"],
    inputs: { qkv: [shortRows, 3 * shortWidth], dy: [shortRows, shortWidth] },
    roundings: { terms: 2 * 24 + 2 * 66, operations: 9 }, // as above
    run(x) {
      const output = attention(x.m("qkv"), short);
      return { y: output.out, dqkv: attentionBackward(x.m("dy"), x.m("qkv"), output, short) };
    },
  },
  {
    name: "MLP with biases",
    kernels: ["PaddockMlp", "PaddockMlpBackward"],
    inputs: {
      x: [T, C],
      w1: [O, C],
      b1: [O],
      w2: [S, O],
      b2: [S],
      w3: [C, S],
      b3: [C],
      dy: [T, C],
    },
    roundings: { terms: 2 * T + S, operations: 24 }, // two GELUs, their gradients, three sums with bias
    run: (x) =>
      ofMlp(x, [
        { weight: x.m("w1"), bias: x.v("b1") },
        { weight: x.m("w2"), bias: x.v("b2") },
        { weight: x.m("w3"), bias: x.v("b3") },
      ]),
  },
  {
    name: "MLP without biases",
    kernels: ["PaddockMlp", "PaddockMlpBackward"],
    inputs: { x: [T, C], w1: [O, C], w2: [C, O], dy: [T, C] },
    roundings: { terms: 2 * T, operations: 12 },
    run: (x) => ofMlp(x, [{ weight: x.m("w1") }, { weight: x.m("w2") }]),
  },
  {
    name: "rows of sequences with registers and interpolated positions",
    kernels: ["PaddockSequenceRows", "PaddockSequenceRowsBackward"],
    inputs: {
      patches: [3 * 6, C],
      cls: [1, 1, C],
      registers: [1, 2, C],
      positions: [1, 10, C],
      matrix: [6, 9],
      d: [3 * 9, C],
    },
    roundings: { terms: 9 + 6 + 3, operations: 2 },
    run(x) {
      const matrix = x.m("matrix");
      const parts = { cls: x.v("cls"), registers: x.v("registers"), positions: x.v("positions") };
      return {
        y: sequenceRows(x.m("patches"), 3, { ...parts, matrix }),
        ...sequenceRowsBackward(x.m("d"), 3, { registers: 2, withPositions: true, matrix }),
      };
    },
  },
  {
    name: "rows of sequences without registers and positions",
    kernels: ["PaddockSequenceRows", "PaddockSequenceRowsBackward"],
    inputs: { patches: [3 * 6, C], cls: [1, 1, C], d: [3 * 7, C] },
    roundings: { terms: 3, operations: 0 },
    run: (x) => ({
      y: sequenceRows(x.m("patches"), 3, { cls: x.v("cls") }),
      ...sequenceRowsBackward(x.m("d"), 3, { registers: 0, withPositions: false }),
    }),
  },
  {
    name: "mask tokens",
    kernels: ["PaddockMaskRows", "PaddockMaskRowsBackward"],
    inputs: { x: [T, C], token: [1, C], d: [T, C] },
    roundings: { terms: T, operations: 2 },
    run(x) {
      const mask = tf.tensor2d(
        Array.from({ length: T }, (_, row) => (row % 3 === 1 ? 1 : 0)),
        [T, 1],
      );
      return {
        y: maskRows(x.m("x"), mask, x.m("token")),
        ...maskRowsBackward(x.m("d"), mask),
      };
    },
  },
  {
    name: "rotary positions of all but the first row of each sequence",
    kernels: ["PaddockRope"],
    inputs: { qkv: [packed, 3 * width], dqkv: [packed, 3 * width], angles: [64 + 7, headDim / 2] },
    roundings: { terms: 0, operations: 6 }, // cosine and sine, 2 products, a sum
    run(x) {
      const [cos, sin] = [tf.cos(x.m("angles")), tf.sin(x.m("angles"))] as const;
      const rotation = { cos, sin, prefix: 1, dtype: "fp32" } as const;
      // Rotation takes its rows: an op's result, not the input itself.
      return {
        y: rotate(tf.add(x.m("qkv"), 0), rotation, shape),
        dx: rotateBackward(tf.add(x.m("dqkv"), 0), rotation, shape),
      };
    },
  },
  {
    name: "SwiGLU",
    kernels: ["PaddockSwiglu", "PaddockSwigluBackward"],
    inputs: { x: [T, 2 * C], dy: [T, C] },
    roundings: { terms: 0, operations: 9 }, // exp, a quotient, 3 products
    run: (x) => ({ y: swiglu(x.m("x")), dx: swigluBackward(x.m("dy"), x.m("x")) }),
  },
  {
    name: "residual on all rows",
    kernels: ["PaddockScaledAdd", "PaddockScaledAddBackward"],
    inputs: { x: [T, C], r: [T, C], dy: [T, C] },
    roundings: { terms: 0, operations: 1 },
    run: (x) => ({
      y: scaledAdd(x.m("x"), x.m("r"), {}),
      ...scaledAddBackward(x.m("dy"), x.m("r"), {}),
    }),
  },
  {
    name: "residual on all rows with LayerScale",
    kernels: ["PaddockScaledAdd", "PaddockScaledAddBackward"],
    inputs: { x: [T, C], r: [T, C], gamma: [C], dy: [T, C] },
    roundings: { terms: T, operations: 1 },
    run(x) {
      const options = { gamma: x.v("gamma") };
      return {
        y: scaledAdd(x.m("x"), x.m("r"), options),
        ...scaledAddBackward(x.m("dy"), x.m("r"), options),
      };
    },
  },
  {
    name: "residual on chosen rows with LayerScale and stochastic depth",
    kernels: ["PaddockScaledAdd", "PaddockScaledAddBackward"],
    inputs: { x: [T, C], r: [S, C], gamma: [C], rowScale: [S], dy: [T, C] },
    roundings: { terms: S, operations: 3 },
    run(x) {
      const options = { gamma: x.v("gamma"), rows: int32(chosen), rowScale: x.v("rowScale") };
      return {
        y: scaledAdd(x.m("x"), x.m("r"), options),
        ...scaledAddBackward(x.m("dy"), x.m("r"), options),
      };
    },
  },
  {
    name: "gathered rows",
    kernels: ["PaddockGatherRows"],
    inputs: { x: [T, C] },
    roundings: exact,
    run: (x) => ({ y: gatherRows(x.m("x"), int32(repeated)) }),
  },
  {
    name: "rows added, one of them three times, in order",
    kernels: ["PaddockScatterAddRows"],
    inputs: { x: [T, C], r: [S, C] },
    roundings: exact,
    run: (x) => ({ y: scatterAddRows(x.m("x"), x.m("r"), int32(repeated)) }),
  },
  {
    name: "L2 norm",
    kernels: ["PaddockL2Normalize", "PaddockL2NormalizeBackward"],
    inputs: { x: [T, C], dy: [T, C] },
    roundings: { terms: C + C, operations: 7 }, // root, 2 quotients, a product
    run(x) {
      const output = l2Normalize(x.m("x"), 1e-12);
      return { ...output, dx: l2NormalizeBackward(x.m("dy"), output) };
    },
  },
  {
    name: "a unit cut into its parameters, and gradients laid into one vector",
    kernels: ["PaddockCut", "PaddockJoin"],
    inputs: { flat: [unit.elements], a: [O, C], c: [C] },
    roundings: exact,
    run(x) {
      const tensors = viewUnit(unit, x.v("flat"));
      return { ...tensors, gradient: flatGradient(unit, { a: x.m("a"), c: x.v("c") }) };
    },
  },
  ...objectiveCases,
];

function ofMlp(x: OpInputs, layers: readonly DenseLayer[]): Record<string, tf.Tensor | undefined> {
  const { y, before } = mlp(x.m("x"), layers);
  const { dx, layers: gradients } = mlpBackward(x.m("dy"), x.m("x"), before, layers);
  const ofLayers = gradients.flatMap(({ dw, db }, i) => [
    [`dw${i}`, dw],
    [`db${i}`, db],
  ]);
  return { y, dx, ...Object.fromEntries(ofLayers) };
}
