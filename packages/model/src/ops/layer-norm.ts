/** Layer normalisation over the last axis, and its gradients. Shapes: M rows, C features. */
import * as tf from "@tensorflow/tfjs-core";
import { columnSums, hasFused, runFused } from "./fused.js";

export interface LayerNormOutput {
  readonly y: tf.Tensor2D;
  /** Per row: the mean and 1 / sqrt(variance + eps); backward needs them. */
  readonly mean: tf.Tensor1D;
  readonly rstd: tf.Tensor1D;
}

export interface LayerNormGradients {
  readonly dx: tf.Tensor2D;
  readonly dgamma: tf.Tensor1D;
  readonly dbeta: tf.Tensor1D;
}

/** @param x [M,C] @param gamma [C] @param beta [C]. The caller owns the outputs. */
export function layerNorm(
  x: tf.Tensor2D,
  gamma: tf.Tensor1D,
  beta: tf.Tensor1D,
  eps: number,
): LayerNormOutput {
  if (hasFused("PaddockLayerNorm")) {
    const [y, mean, rstd] = runFused("PaddockLayerNorm", { x, gamma, beta }, { eps });
    return { y: y as tf.Tensor2D, mean: mean as tf.Tensor1D, rstd: rstd as tf.Tensor1D };
  }
  return tf.tidy(() => {
    const mean = tf.mean(x, 1) as tf.Tensor1D;
    const centred = tf.sub(x, column(mean));
    const rstd = tf.rsqrt(tf.add(tf.mean(tf.square(centred), 1), eps)) as tf.Tensor1D;
    const y = tf.add(tf.mul(tf.mul(centred, column(rstd)), gamma), beta) as tf.Tensor2D;
    return { y, mean, rstd };
  });
}

/** Gradients of `layerNorm` for dy [M,C]; the caller owns them. */
export function layerNormBackward(
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  stats: { readonly mean: tf.Tensor1D; readonly rstd: tf.Tensor1D },
  gamma: tf.Tensor1D,
): LayerNormGradients {
  const { mean, rstd } = stats;
  if (hasFused("PaddockLayerNormBackward")) {
    const inputs = { dy, x, mean, rstd, gamma };
    const [dx, dgamma, dbeta] = runFused("PaddockLayerNormBackward", inputs);
    return {
      dx: dx as tf.Tensor2D,
      dgamma: dgamma as tf.Tensor1D,
      dbeta: dbeta as tf.Tensor1D,
    };
  }
  return tf.tidy(() => {
    const normal = tf.mul(tf.sub(x, column(mean)), column(rstd)) as tf.Tensor2D;
    const dnormal = tf.mul(dy, gamma);
    const along = tf.mean(tf.mul(dnormal, normal), 1, true);
    const inner = tf.sub(tf.sub(dnormal, tf.mean(dnormal, 1, true)), tf.mul(normal, along));
    return {
      dx: tf.mul(inner, column(rstd)) as tf.Tensor2D,
      dgamma: columnSums(tf.mul(dy, normal)),
      dbeta: columnSums(dy),
    };
  });
}

function column(x: tf.Tensor1D): tf.Tensor2D {
  return tf.reshape(x, [-1, 1]);
}
