/**
 * Paddock's own kernels: fused forward and backward passes of the model's ops, under the names the model
 * asks the active backend for. All dense and float32, or of the lower precision that `PaddockToPrecision` gave their
 * inputs; M, N, S, T count rows, C, I, O, K features. None of them goes on TF.js's tape.
 */
import type { KernelConfig, TensorInfo } from "@tensorflow/tfjs-core";
import { type BinaryOp, type Precision, precisionNumbers, type UnaryOp } from "../../native.js";
import type { TorchBackend } from "../backend.js";
import { kernel } from "./table.js";

type Inputs<Names extends string> = Record<Names, TensorInfo>;
type Optional<Names extends string> = Partial<Record<Names, TensorInfo>>;

/** Runs of `count` sequences of `length` rows each, in order. */
interface AttentionAttrs {
  readonly numHeads: number;
  readonly groups: readonly { readonly count: number; readonly length: number }[];
}

/** `prefix` rows of each sequence have no position; `inverse` turns back; `rounded`: in bfloat16. */
interface RopeAttrs extends AttentionAttrs {
  readonly prefix: number;
  readonly inverse: boolean;
  readonly rounded: boolean;
}

/** Tensors inside a vector: where each begins, its shape, and its precision. */
interface CutAttrs {
  readonly starts: readonly number[];
  readonly shapes: readonly (readonly number[])[];
  readonly precisions: readonly Precision[];
}

/** `topk` neighbours of each row, among those of `ranks` equal ranks; `eps` is added to differences and distances. */
interface KoleoAttrs {
  readonly topk: number;
  readonly ranks: number;
  readonly weight: number;
  readonly eps: number;
}

/** The inputs `<prefix>0`, `<prefix>1`, ... as far as they go. */
function numbered(b: TorchBackend, inputs: Partial<Record<string, TensorInfo>>, prefix: string) {
  const handles: number[] = [];
  for (let x = inputs[`${prefix}0`]; x; x = inputs[`${prefix}${handles.length}`]) {
    handles.push(b.handle(x));
  }
  return handles;
}

const runsOf = ({ groups }: AttentionAttrs) =>
  groups.flatMap(({ count, length }) => [count, length]);

function likeInput(name: string, op: UnaryOp): KernelConfig {
  return kernel<Inputs<"x">>(name, (b, { x }) => b.wrap(b.native[op](b.handle(x)), "float32"));
}

function likeGradient(name: string, op: BinaryOp): KernelConfig {
  return kernel<Inputs<"dy" | "x">>(name, (b, { dy, x }) =>
    b.wrap(b.native[op](b.handle(dy), b.handle(x)), "float32", x.shape),
  );
}

/** The branch of a residual block: r [S,C] with optional gamma [C], rows int32 [S], rowScale [S]. */
function branch(
  b: TorchBackend,
  { r, gamma, rows, rowScale }: Inputs<"r"> & Optional<"gamma" | "rows" | "rowScale">,
) {
  return [b.handle(r), b.optional(gamma), b.optional(rows), b.optional(rowScale)] as const;
}

export const fusedKernels: readonly KernelConfig[] = [
  kernel<Inputs<"x">, { precision: Precision }>("PaddockToPrecision", (b, { x }, { precision }) =>
    b.wrap(b.native.toPrecision(b.handle(x), precisionNumbers[precision]), "float32", x.shape),
  ),
  kernel<Inputs<"x" | "w"> & Optional<"bias">>("PaddockLinear", (b, { x, w, bias }) =>
    b.wrap(b.native.linear(b.handle(x), b.handle(w), b.optional(bias)), "float32"),
  ),
  kernel<Inputs<"dy" | "x" | "w">, { needDx: boolean; hasBias: boolean }>(
    "PaddockLinearBackward",
    (b, { dy, x, w }, { needDx, hasBias }) =>
      b.wrapAll(b.native.linearBackward(b.handle(dy), b.handle(x), b.handle(w), needDx, hasBias)),
  ),
  kernel<Inputs<"x">>("PaddockMlp", (b, inputs) => {
    const [weights, biases] = [numbered(b, inputs, "weight"), numbered(b, inputs, "bias")];
    return b.wrapAll(b.native.mlp(b.handle(inputs.x), b.list(weights), b.append(biases)));
  }),
  kernel<Inputs<"dy" | "x">, { hasBias: boolean }>("PaddockMlpBackward", (b, inputs, attrs) => {
    const [before, weights] = [numbered(b, inputs, "before"), numbered(b, inputs, "weight")];
    const rows = [b.handle(inputs.dy), b.handle(inputs.x)] as const;
    return b.wrapAll(
      b.native.mlpBackward(...rows, b.list(before), b.append(weights), attrs.hasBias),
    );
  }),
  kernel<Inputs<"x">, CutAttrs>("PaddockCut", (b, { x }, { starts, shapes, precisions }) =>
    b.wrapAll(
      b.native.cut(
        b.handle(x),
        b.list(starts),
        b.append(shapes.map((shape) => shape.length)),
        b.append(shapes.flat()),
        b.append(precisions.map((precision) => precisionNumbers[precision])),
      ),
    ),
  ),
  kernel<Record<string, TensorInfo>, { starts: readonly number[]; size: number }>(
    "PaddockJoin",
    (b, tensors, { starts, size }) => {
      const handles = Object.values(tensors).map((tensor) => b.handle(tensor));
      return b.wrap(b.native.join(b.list(handles), b.append(starts), size), "float32", [size]);
    },
  ),
  likeInput("PaddockGelu", "gelu"),
  likeGradient("PaddockGeluBackward", "geluBackward"),
  likeInput("PaddockSwiglu", "swiglu"),
  likeGradient("PaddockSwigluBackward", "swigluBackward"),
  kernel<Inputs<"x" | "gamma" | "beta">, { eps: number }>(
    "PaddockLayerNorm",
    (b, { x, gamma, beta }, { eps }) =>
      b.wrapAll(b.native.layerNorm(b.handle(x), b.handle(gamma), b.handle(beta), eps)),
  ),
  kernel<Inputs<"dy" | "x" | "mean" | "rstd" | "gamma">>(
    "PaddockLayerNormBackward",
    (b, { dy, x, mean, rstd, gamma }) => {
      const statistics = [b.handle(mean), b.handle(rstd)] as const;
      const upstream = [b.handle(dy), b.handle(x)] as const;
      return b.wrapAll(b.native.layerNormBackward(...upstream, ...statistics, b.handle(gamma)));
    },
  ),
  kernel<Inputs<"qkv" | "cos" | "sin">, RopeAttrs>("PaddockRope", (b, { qkv, cos, sin }, attrs) => {
    const { numHeads, prefix, inverse, rounded } = attrs;
    const tensors = [b.handle(qkv), b.handle(cos), b.handle(sin)] as const;
    b.native.rope(...tensors, numHeads, prefix, b.list(runsOf(attrs)), inverse, rounded);
    return b.alias(qkv);
  }),
  kernel<Inputs<"qkv">, AttentionAttrs>("PaddockAttention", (b, { qkv }, attrs) =>
    b.wrapAll(b.native.attention(b.handle(qkv), attrs.numHeads, b.list(runsOf(attrs)))),
  ),
  kernel<Inputs<"dy" | "qkv" | "out" | "lse">, AttentionAttrs>(
    "PaddockAttentionBackward",
    (b, { dy, qkv, out, lse }, attrs) => {
      const tensors = [b.handle(dy), b.handle(qkv), b.handle(out), b.handle(lse)] as const;
      const dqkv = b.native.attentionBackward(...tensors, attrs.numHeads, b.list(runsOf(attrs)));
      return b.wrap(dqkv, "float32", qkv.shape);
    },
  ),
  kernel<Inputs<"x" | "r"> & Optional<"gamma" | "rows" | "rowScale">>(
    "PaddockScaledAdd",
    (b, inputs) =>
      b.wrap(
        b.native.scaledAdd(b.handle(inputs.x), ...branch(b, inputs)),
        "float32",
        inputs.x.shape,
      ),
  ),
  kernel<Inputs<"dy" | "r"> & Optional<"gamma" | "rows" | "rowScale">>(
    "PaddockScaledAddBackward",
    (b, inputs) => b.wrapAll(b.native.scaledAddBackward(b.handle(inputs.dy), ...branch(b, inputs))),
  ),
  kernel<Inputs<"x" | "rows">>("PaddockGatherRows", (b, { x, rows }) =>
    b.wrap(b.native.gatherRows(b.handle(x), b.handle(rows)), "float32"),
  ),
  kernel<Inputs<"x" | "r" | "rows">>("PaddockScatterAddRows", (b, { x, r, rows }) =>
    b.wrap(b.native.scatterAddRows(b.handle(x), b.handle(r), b.handle(rows)), "float32", x.shape),
  ),
  kernel<Inputs<"x">, { eps: number }>("PaddockL2Normalize", (b, { x }, { eps }) =>
    b.wrapAll(b.native.l2Normalize(b.handle(x), eps)),
  ),
  kernel<Inputs<"dy" | "y" | "norm">>("PaddockL2NormalizeBackward", (b, { dy, y, norm }) =>
    b.wrap(
      b.native.l2NormalizeBackward(b.handle(dy), b.handle(y), b.handle(norm)),
      "float32",
      y.shape,
    ),
  ),
  kernel<Inputs<"logits" | "target" | "index" | "weight">, { temperature: number }>(
    "PaddockCrossEntropy",
    (b, { logits, target, index, weight }, { temperature }) => {
      const goal = [b.handle(target), b.handle(index), b.handle(weight)] as const;
      return b.wrapAll(b.native.crossEntropy(b.handle(logits), ...goal, temperature));
    },
  ),
  kernel<Inputs<"v" | "g">>("PaddockWeightNorm", (b, { v, g }) =>
    b.wrapAll(b.native.weightNorm(b.handle(v), b.handle(g))),
  ),
  kernel<Inputs<"dw" | "g" | "y" | "norm">>("PaddockWeightNormBackward", (b, { dw, g, y, norm }) =>
    b.wrapAll(b.native.weightNormBackward(b.handle(dw), b.handle(g), b.handle(y), b.handle(norm))),
  ),
  kernel<Inputs<"x">, KoleoAttrs>("PaddockKoleo", (b, { x }, { topk, ranks, weight, eps }) =>
    b.wrapAll(b.native.koleo(b.handle(x), topk, ranks, weight, eps), ["float32", "int32"]),
  ),
  kernel<Inputs<"scores">, { shift: number; temperature: number }>(
    "PaddockSinkhornStart",
    (b, { scores }, { shift, temperature }) =>
      b.wrapAll(b.native.sinkhornStart(b.handle(scores), shift, temperature)),
  ),
  kernel<Inputs<"q" | "v">>("PaddockSinkhornColumns", (b, { q, v }) =>
    b.wrap(b.native.sinkhornColumns(b.handle(q), b.handle(v)), "float32"),
  ),
  kernel<Inputs<"q" | "u">>("PaddockSinkhornRows", (b, { q, u }) =>
    b.wrap(b.native.sinkhornRows(b.handle(q), b.handle(u)), "float32"),
  ),
  kernel<Inputs<"q" | "u" | "v">>("PaddockSinkhornFinish", (b, { q, u, v }) =>
    b.wrap(b.native.sinkhornFinish(b.handle(q), b.handle(u), b.handle(v)), "float32"),
  ),
  kernel<Inputs<"patches" | "cls"> & Optional<"registers" | "positions" | "matrix">, { n: number }>(
    "PaddockSequenceRows",
    (b, { patches, cls, registers, positions, matrix }, { n }) => {
      const optional = [b.optional(registers), b.optional(positions), b.optional(matrix)] as const;
      return b.wrap(
        b.native.sequenceRows(b.handle(patches), b.handle(cls), ...optional, n),
        "float32",
      );
    },
  ),
  kernel<
    Inputs<"d"> & Optional<"matrix">,
    { n: number; registers: number; withPositions: boolean }
  >("PaddockSequenceRowsBackward", (b, { d, matrix }, { n, registers, withPositions }) => {
    const inputs = [b.handle(d), b.optional(matrix)] as const;
    return b.wrapAll(b.native.sequenceRowsBackward(...inputs, n, registers, withPositions));
  }),
  kernel<Inputs<"x" | "mask" | "token">>("PaddockMaskRows", (b, { x, mask, token }) =>
    b.wrap(b.native.maskRows(b.handle(x), b.handle(mask), b.handle(token)), "float32"),
  ),
  kernel<Inputs<"d" | "mask">>("PaddockMaskRowsBackward", (b, { d, mask }) =>
    b.wrapAll(b.native.maskRowsBackward(b.handle(d), b.handle(mask))),
  ),
];
