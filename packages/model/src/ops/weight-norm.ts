/** Weight normalisation w = g v / |v| by rows (torch.nn.utils.weight_norm, dim 0). Shapes: K rows, B features. */
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";
import { l2Normalize, l2NormalizeBackward, type Normalized } from "./l2-normalize.js";

export interface WeightNormOutput {
  /** [K,B] */
  readonly w: tf.Tensor2D;
  readonly direction: Normalized;
}

/** @param g [K,1] @param v [K,B]. The caller owns the outputs. */
export function weightNorm(g: tf.Tensor2D, v: tf.Tensor2D): WeightNormOutput {
  if (hasFused("PaddockWeightNorm")) {
    const [w, y, norm] = runFused("PaddockWeightNorm", { v, g });
    return {
      w: w as tf.Tensor2D,
      direction: { y: y as tf.Tensor2D, norm: norm as tf.Tensor1D },
    };
  }
  const direction = l2Normalize(v, 0);
  return { w: tf.mul(direction.y, g), direction };
}

/** Gradients for dw [K,B]; the caller owns them. */
export function weightNormBackward(
  dw: tf.Tensor2D,
  g: tf.Tensor2D,
  direction: Normalized,
): { readonly dg: tf.Tensor2D; readonly dv: tf.Tensor2D } {
  if (hasFused("PaddockWeightNormBackward")) {
    const [dg, dv] = runFused("PaddockWeightNormBackward", { dw, g, ...direction });
    return { dg: dg as tf.Tensor2D, dv: dv as tf.Tensor2D };
  }
  return tf.tidy(() => ({
    dg: tf.sum(tf.mul(dw, direction.y), 1, true) as tf.Tensor2D,
    dv: l2NormalizeBackward(tf.mul(dw, g), direction),
  }));
}
