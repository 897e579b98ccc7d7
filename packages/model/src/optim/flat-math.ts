/**
 * Arithmetic on flat fp32 vectors that are not tensors: shards of parameters, moments and gradients. An engine brings a fast
 * implementation; this one is the reference and the fallback. The result of an element never depends on its position
 * in the vector, so it does not depend on how shards are cut.
 */
import { decodeHalf, encodeHalf, roundHalf } from "./half.js";

export interface AdamWOptions {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** From 1. */
  readonly step: number;
}

export interface FlatMath {
  /**
   * PyTorch's AdamW, in place: p *= 1 - lr wd; m, v = moments of grad; p -= lr / (1 - beta1^t) * m / (sqrt(v) /
   * sqrt(1 - beta2^t) + eps).
   */
  adamw(
    param: Float32Array,
    grad: Float32Array,
    m: Float32Array,
    v: Float32Array,
    o: AdamWOptions,
  ): void;
  /** teacher = momentum * teacher + (1 - momentum) * student, in place. */
  ema(teacher: Float32Array, student: Float32Array, momentum: number): void;
  /** fp32 to fp16 bits, round to nearest even. */
  encodeHalf(src: Float32Array, dst: Uint16Array): void;
  decodeHalf(src: Uint16Array, dst: Float32Array): void;
  /** Rounds to fp16 in place. */
  roundHalf(x: Float32Array): void;
  /** dst += src */
  add(dst: Float32Array, src: Float32Array): void;
  /** x *= factor */
  scale(x: Float32Array, factor: number): void;
  /**
   * The sum of squares of each chunk of `chunk` elements (the last may be shorter) into `out`, in doubles and in a fixed
   * order: 8 lanes by i % 8, then ((l0+l1)+(l2+l3))+((l4+l5)+(l6+l7)).
   */
  sumSquares(x: Float32Array, chunk: number, out: Float64Array): void;
  allFinite(x: Float32Array): boolean;
}

/** Plain TypeScript. Moments and parameters are computed in doubles and rounded once when stored. */
export const referenceFlatMath: FlatMath = {
  // hot:
  adamw(param, grad, m, v, { learningRate, beta1, beta2, eps, weightDecay, step }) {
    const decay = 1 - learningRate * weightDecay;
    const stepSize = learningRate / (1 - beta1 ** step);
    const root = Math.sqrt(1 - beta2 ** step);
    for (let i = 0; i < param.length; i++) {
      const g = grad[i] as number;
      const first = beta1 * (m[i] as number) + (1 - beta1) * g;
      const second = beta2 * (v[i] as number) + (1 - beta2) * g * g;
      m[i] = first;
      v[i] = second;
      param[i] =
        (param[i] as number) * decay - (stepSize * first) / (Math.sqrt(second) / root + eps);
    }
  },
  // hot:
  ema(teacher, student, momentum) {
    for (let i = 0; i < teacher.length; i++) {
      teacher[i] = momentum * (teacher[i] as number) + (1 - momentum) * (student[i] as number);
    }
  },
  encodeHalf,
  decodeHalf,
  roundHalf,
  // hot:
  add(dst, src) {
    for (let i = 0; i < dst.length; i++) dst[i] = (dst[i] as number) + (src[i] as number);
  },
  // hot:
  scale(x, factor) {
    for (let i = 0; i < x.length; i++) x[i] = (x[i] as number) * factor;
  },
  // hot:
  sumSquares(x, chunk, out) {
    const l = new Float64Array(8);
    for (let c = 0; c < out.length; c++) {
      l.fill(0);
      const start = c * chunk;
      const end = Math.min(start + chunk, x.length);
      for (let i = start; i < end; i++) {
        const value = x[i] as number;
        const lane = (i - start) & 7;
        l[lane] = (l[lane] as number) + value * value;
      }
      const [a, b, d, e, f, g, h, k] = l as unknown as [
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
      ];
      out[c] = a + b + (d + e) + (f + g + (h + k));
    }
  },
  allFinite(x) {
    return x.every(Number.isFinite);
  },
};
