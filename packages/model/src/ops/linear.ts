/** y = x wT + bias, and its gradients. Shapes: M rows, I inputs, O outputs. */
import * as tf from "@tensorflow/tfjs-core";
import { columnSums, hasFused, runFused } from "./fused.js";

export interface LinearGradients {
  readonly dw: tf.Tensor2D;
  /** Absent without a bias. */
  readonly db?: tf.Tensor1D;
  /** Absent if the caller does not need it. */
  readonly dx?: tf.Tensor2D;
}

/** @param x [M,I] @param w [O,I] @param bias [O] @returns [M,O], owned by the caller. */
export function linear(x: tf.Tensor2D, w: tf.Tensor2D, bias?: tf.Tensor1D): tf.Tensor2D {
  if (hasFused("PaddockLinear")) return runFused("PaddockLinear", { x, w, bias })[0] as tf.Tensor2D;
  return tf.tidy(() => {
    // Explicit transposes here and below: TF.js's wasm matMul is 15 times slower with its transpose flags.
    const y = tf.matMul(x, tf.transpose(w));
    return (bias ? tf.add(y, bias) : y) as tf.Tensor2D;
  });
}

/** Gradients of `linear` for dy [M,O]; the caller owns them. */
export function linearBackward(
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  w: tf.Tensor2D,
  { needDx, hasBias }: { readonly needDx: boolean; readonly hasBias: boolean },
): LinearGradients {
  if (hasFused("PaddockLinearBackward")) {
    const outputs = runFused("PaddockLinearBackward", { dy, x, w }, { needDx, hasBias });
    const dw = outputs.shift() as tf.Tensor2D;
    const db = hasBias ? { db: outputs.shift() as tf.Tensor1D } : {};
    const dx = needDx ? { dx: outputs.shift() as tf.Tensor2D } : {};
    return { dw, ...db, ...dx };
  }
  const dw = tf.tidy(() => tf.matMul(tf.transpose(dy), x)) as tf.Tensor2D;
  const db = hasBias ? { db: columnSums(dy) } : {};
  const dx = needDx ? { dx: tf.matMul(dy, w) as tf.Tensor2D } : {};
  return { dw, ...db, ...dx };
}
