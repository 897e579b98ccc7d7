/** The ops of heads and losses: see op-cases.ts. */
import {
  crossEntropy,
  groupKoleo,
  koleo,
  sinkhornColumns,
  sinkhornFinish,
  sinkhornRows,
  sinkhornStart,
  weightNorm,
  weightNormBackward,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import type { OpCase } from "./op-case.js";

const [T, S, C, O] = [131, 70, 37, 29];
/** Rows of a target, one of them three times. */
const repeated = Array.from({ length: S }, (_, i) => (i * 7) % T)
  .with(3, 5)
  .with(69, 5)
  .with(40, 5);

export const objectiveCases: readonly OpCase[] = [
  {
    name: "weight norm",
    kernels: ["PaddockWeightNorm", "PaddockWeightNormBackward"],
    inputs: { g: [O, 1], v: [O, C], dw: [O, C] },
    roundings: { terms: C + C, operations: 7 }, // root, 2 quotients, a product
    run(x) {
      const { w, direction } = weightNorm(x.m("g"), x.m("v"));
      return { w, ...weightNormBackward(x.m("dw"), x.m("g"), direction) };
    },
  },
  {
    name: "cross-entropy",
    kernels: ["PaddockCrossEntropy"],
    inputs: { logits: [S, 1031], target: [T, 1031], weight: [S] },
    roundings: { terms: 1031 + 1031, operations: 10 }, // log-sum-exp, product with the target; exp, log, quotient
    run(x) {
      const targets = {
        target: x.m("target"),
        index: tf.tensor1d(repeated, "int32"),
        weight: x.v("weight"),
      };
      return crossEntropy({ logits: x.m("logits"), ...targets }, 0.1);
    },
  },
  {
    name: "Sinkhorn's steps",
    kernels: [
      "PaddockSinkhornStart",
      "PaddockSinkhornColumns",
      "PaddockSinkhornRows",
      "PaddockSinkhornFinish",
    ],
    inputs: { scores: [S, O], u: [O] },
    roundings: { terms: S + O, operations: 12 }, // exp, quotients, a reciprocal, 2 products
    run(x) {
      const u = tf.abs(x.v("u")) as tf.Tensor1D;
      const state = sinkhornStart(x.m("scores"), 0.5, 0.4);
      const columns = sinkhornColumns(state);
      const v = sinkhornRows(state.q, u);
      return { ...state, columns, rows: v, assigned: sinkhornFinish({ q: state.q, v }, u) };
    },
  },
  {
    name: "KoLeo",
    kernels: ["PaddockKoleo"],
    inputs: { x: [19, C] },
    roundings: { terms: C + C + 19, operations: 12 }, // log, 2 roots, 3 quotients
    run(x) {
      const { loss, dx, neighbours } = koleo(x.m("x"), 0.3);
      return { loss, dx, neighbours };
    },
  },
  {
    name: "KoLeo over the rows of three ranks, two neighbours each",
    kernels: ["PaddockKoleo"],
    inputs: { x: [21, C] },
    roundings: { terms: C + C + 21, operations: 14 }, // as above, and the sum over neighbours
    run(x) {
      const { losses, dx, neighbours } = groupKoleo(x.m("x"), 0.3, { topk: 2, ranks: 3 });
      return { dx, neighbours, first: losses[0], second: losses[1], third: losses[2] };
    },
  },
];
