/**
 * Arithmetic on plain arrays, which may be views of SharedArrayBuffers: the optimizer's and the exchange's
 * inner loops. Every elementwise result is the same wherever an element lies in an array, so that it does
 * not matter how a vector is cut into shards. Arrays of one call must be equally long and not overlap.
 */
import type { Native } from "./native.js";

export interface AdamWOptions {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** Counts from 1: the bias corrections are 1 - beta^step. */
  readonly step: number;
}

export interface FlatMath {
  /**
   * One AdamW step in place, as PyTorch's. Every operation rounds to float32, in this order, where
   * b1, b2, 1 - b1 (= fround(1 - fround(beta1))), 1 - b2 and eps are float32 and
   * decay = fround(1 - learningRate * weightDecay), stepSize = fround(learningRate / (1 - beta1^step)),
   * root = fround(sqrt(1 - beta2^step)), each computed in double:
   *     m += (1 - b1) * (g - m);  v = v * b2 + ((1 - b2) * g) * g;
   *     param = param * decay - (stepSize * m) / (sqrt(v) / root + eps)
   */
  adamw(
    param: Float32Array,
    grad: Float32Array,
    m: Float32Array,
    v: Float32Array,
    options: AdamWOptions,
  ): void;
  /** teacher = teacher * momentum + student * (1 - momentum), both factors rounded to float32 first. */
  ema(teacher: Float32Array, student: Float32Array, momentum: number): void;
  /** IEEE half precision, round to nearest even. NaN keeps its sign and upper payload, and turns quiet. */
  encodeHalf(src: Float32Array, dst: Uint16Array): void;
  decodeHalf(src: Uint16Array, dst: Float32Array): void;
  /** What encodeHalf and decodeHalf would leave, in place. */
  roundHalf(x: Float32Array): void;
  /** dst += src */
  add(dst: Float32Array, src: Float32Array): void;
  /** x *= factor, the factor rounded to float32 first. */
  scale(x: Float32Array, factor: number): void;
  /**
   * out[c] = sum of squares of x[c * chunk, (c + 1) * chunk) in double precision: element i of the chunk is
   * added to lane i % 8 in order, then ((l0+l1)+(l2+l3))+((l4+l5)+(l6+l7)). `out` has one place per chunk.
   */
  sumSquares(x: Float32Array, chunk: number, out: Float64Array): void;
  allFinite(x: Float32Array): boolean;
}

/** The addon's arithmetic, on the engine's threads. */
export function nativeFlatMath(native: Native): FlatMath {
  return {
    adamw: (param, grad, m, v, o) => {
      const rates = [o.learningRate, o.beta1, o.beta2, o.eps, o.weightDecay, o.step] as const;
      native.flatAdamw(param, grad, m, v, ...rates);
    },
    ema: (teacher, student, momentum) => native.flatEma(teacher, student, momentum),
    encodeHalf: (src, dst) => native.flatEncodeHalf(src, dst),
    decodeHalf: (src, dst) => native.flatDecodeHalf(src, dst),
    roundHalf: (x) => native.flatRoundHalf(x),
    add: (dst, src) => native.flatAdd(dst, src),
    scale: (x, factor) => native.flatScale(x, factor),
    sumSquares: (x, chunk, out) => native.flatSumSquares(x, chunk, out),
    allFinite: (x) => native.flatAllFinite(x),
  };
}
