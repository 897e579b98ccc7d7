/** Rows divided by their Euclidean norm, and the gradient. Shapes: M rows, C features. */
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";

export interface Normalized {
  /** [M,C] unit rows. */
  readonly y: tf.Tensor2D;
  /** [M] max(norm, eps). */
  readonly norm: tf.Tensor1D;
}

/** y = x / max(|x|, eps) by rows. The caller owns the outputs. */
export function l2Normalize(x: tf.Tensor2D, eps: number): Normalized {
  if (hasFused("PaddockL2Normalize")) {
    const [y, norm] = runFused("PaddockL2Normalize", { x }, { eps });
    return { y: y as tf.Tensor2D, norm: norm as tf.Tensor1D };
  }
  return tf.tidy(() => {
    const norm = tf.maximum(tf.sqrt(tf.sum(tf.square(x), 1)), eps) as tf.Tensor1D;
    return { y: tf.div(x, tf.reshape(norm, [-1, 1])) as tf.Tensor2D, norm };
  });
}

/** dx = (dy - y <dy, y>) / norm, by rows. */
export function l2NormalizeBackward(dy: tf.Tensor2D, { y, norm }: Normalized): tf.Tensor2D {
  if (hasFused("PaddockL2NormalizeBackward")) {
    return runFused("PaddockL2NormalizeBackward", { dy, y, norm })[0] as tf.Tensor2D;
  }
  return tf.tidy(() => {
    const along = tf.sum(tf.mul(dy, y), 1, true);
    return tf.div(tf.sub(dy, tf.mul(y, along)), tf.reshape(norm, [-1, 1]));
  });
}
