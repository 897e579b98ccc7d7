/**
 * The residual connection: y = x + gamma * r, with LayerScale's gamma, and for batch-subset stochastic depth on some rows
 * only, each with a factor. Shapes: T rows, S rows of the residual (S = T without `rows`), C features.
 */
import * as tf from "@tensorflow/tfjs-core";
import { columnSums, hasFused, runFused } from "./fused.js";
import { scatterAddRows } from "./rows.js";

export interface ScaledAddOptions {
  /** LayerScale [C]. */
  readonly gamma?: tf.Tensor1D | undefined;
  /** int32 [S]: where the rows of r go; each row at most once. */
  readonly rows?: tf.Tensor1D | undefined;
  /** [S]: a factor per row of r. */
  readonly rowScale?: tf.Tensor1D | undefined;
}

/** @param x [T,C] @param r [S,C] @returns [T,C], owned by the caller. */
export function scaledAdd(x: tf.Tensor2D, r: tf.Tensor2D, o: ScaledAddOptions): tf.Tensor2D {
  const { gamma, rows, rowScale } = o;
  if (hasFused("PaddockScaledAdd")) {
    return runFused("PaddockScaledAdd", { x, r, gamma, rows, rowScale })[0] as tf.Tensor2D;
  }
  return tf.tidy(() => {
    let scaled = r;
    if (gamma) scaled = tf.mul(scaled, gamma);
    if (rowScale) scaled = tf.mul(scaled, tf.reshape(rowScale, [-1, 1]));
    return rows ? scatterAddRows(x, scaled, rows) : tf.add(x, scaled);
  });
}

/** Gradients for dy [T,C]; that of x is dy itself. dgamma is absent without gamma. The caller owns them. */
export function scaledAddBackward(
  dy: tf.Tensor2D,
  r: tf.Tensor2D,
  o: ScaledAddOptions,
): { readonly dr: tf.Tensor2D; readonly dgamma?: tf.Tensor1D } {
  const { gamma, rows, rowScale } = o;
  if (hasFused("PaddockScaledAddBackward")) {
    const inputs = { dy, r, gamma, rows, rowScale };
    const [dr, dgamma] = runFused("PaddockScaledAddBackward", inputs);
    return { dr: dr as tf.Tensor2D, ...(gamma ? { dgamma: dgamma as tf.Tensor1D } : {}) };
  }
  return tf.tidy(() => {
    let d: tf.Tensor2D = rows ? tf.gather(dy, rows) : dy;
    if (rowScale) d = tf.mul(d, tf.reshape(rowScale, [-1, 1]));
    if (!gamma) return { dr: tf.clone(d) };
    return { dr: tf.mul(d, gamma) as tf.Tensor2D, dgamma: columnSums(tf.mul(d, r)) };
  });
}
