/** Normalisation by the root mean square over the last axis (dinov3 layers/rms_norm.py), and its gradients. Shapes: M rows, C features. */
import * as tf from "@tensorflow/tfjs-core";
import { columnSums } from "./fused.js";

export interface RmsNormOutput {
  readonly y: tf.Tensor2D;
  /** Per row: 1 / sqrt(mean of squares + eps); backward needs it. */
  readonly rstd: tf.Tensor1D;
}

/** @param x [M,C] @param gamma [C]. The caller owns the outputs. */
export function rmsNorm(x: tf.Tensor2D, gamma: tf.Tensor1D, eps: number): RmsNormOutput {
  return tf.tidy(() => {
    const rstd = tf.rsqrt(tf.add(tf.mean(tf.square(x), 1), eps)) as tf.Tensor1D;
    return { y: tf.mul(tf.mul(x, column(rstd)), gamma) as tf.Tensor2D, rstd };
  });
}

/** Gradients of `rmsNorm` for dy [M,C]; the caller owns them. */
export function rmsNormBackward(
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  rstd: tf.Tensor1D,
  gamma: tf.Tensor1D,
): { readonly dx: tf.Tensor2D; readonly dgamma: tf.Tensor1D } {
  return tf.tidy(() => {
    const scale = column(rstd);
    const normal = tf.mul(x, scale) as tf.Tensor2D;
    const dnormal = tf.mul(dy, gamma);
    const along = tf.mean(tf.mul(dnormal, normal), 1, true);
    return {
      dx: tf.mul(tf.sub(dnormal, tf.mul(normal, along)), scale) as tf.Tensor2D,
      dgamma: columnSums(tf.mul(dy, normal)),
    };
  });
}

function column(x: tf.Tensor1D): tf.Tensor2D {
  return tf.reshape(x, [-1, 1]);
}
