/**
 * The steps of Sinkhorn-Knopp between two sums over ranks: Q stays, and factors of rows (v) and columns (u) change.
 * Shapes: N rows, K prototypes.
 */
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";

export interface SinkhornState {
  /** [N,K] exp((scores - row maximum) / temperature) */
  readonly q: tf.Tensor2D;
  /** [N,1] scaling of the rows. */
  v: tf.Tensor2D;
}

/** Divides each row by its largest entry, which v takes back, times exp(-shift / temperature). The caller owns the result. */
export function sinkhornStart(
  scores: tf.Tensor2D,
  shift: number,
  temperature: number,
): SinkhornState {
  if (hasFused("PaddockSinkhornStart")) {
    const [q, v] = runFused("PaddockSinkhornStart", { scores }, { shift, temperature });
    return { q: q as tf.Tensor2D, v: v as tf.Tensor2D };
  }
  return tf.tidy(() => {
    const top = tf.max(scores, 1, true) as tf.Tensor2D;
    return {
      q: tf.exp(tf.div(tf.sub(scores, top), temperature)) as tf.Tensor2D,
      v: tf.exp(tf.div(tf.sub(top, shift), temperature)) as tf.Tensor2D,
    };
  });
}

/** [1,K] columns of Q v, summed. The caller owns them. */
export function sinkhornColumns({ q, v }: SinkhornState): tf.Tensor2D {
  if (hasFused("PaddockSinkhornColumns")) {
    return runFused("PaddockSinkhornColumns", { q, v })[0] as tf.Tensor2D;
  }
  return tf.tidy(() => tf.matMul(tf.reshape(v, [1, -1]), q));
}

/** v = 1 / (Q u) [N,1] for u [K]. The caller owns it. */
export function sinkhornRows(q: tf.Tensor2D, u: tf.Tensor1D): tf.Tensor2D {
  if (hasFused("PaddockSinkhornRows")) {
    return runFused("PaddockSinkhornRows", { q, u })[0] as tf.Tensor2D;
  }
  return tf.tidy(() => tf.reciprocal(tf.matMul(q, tf.reshape(u, [-1, 1]))));
}

/** Q u v [N,K] for u [K]. The caller owns it. */
export function sinkhornFinish({ q, v }: SinkhornState, u: tf.Tensor1D): tf.Tensor2D {
  if (hasFused("PaddockSinkhornFinish")) {
    return runFused("PaddockSinkhornFinish", { q, u, v })[0] as tf.Tensor2D;
  }
  return tf.tidy(() => tf.mul(tf.mul(q, u), v));
}
