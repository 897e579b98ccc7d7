/**
 * Batch normalisation over rows in train mode (torch.nn.BatchNorm1d), and its gradients: what DINO's use_bn_in_head puts after each
 * hidden layer. Shapes: N rows of one logical rank, C features.
 */
import * as tf from "@tensorflow/tfjs-core";
import { columnSums } from "../ops/fused.js";
import { optionalParameter, parameterOf, type UnitTensors } from "../tensors.js";
import type { Grads } from "../vit/layers.js";

/** torch.nn.BatchNorm1d's defaults. */
const eps = 1e-5;
const momentum = 0.1;

export interface BatchNormLayer {
  readonly name: string;
  /** [C] */
  readonly weight: tf.Tensor1D;
  readonly bias: tf.Tensor1D;
}

/** What the backward needs; `x` is the input. */
export interface BatchNormSaved {
  readonly x: tf.Tensor2D;
  /** [C] */
  readonly mean: tf.Tensor1D;
  readonly rstd: tf.Tensor1D;
}

/** Mean and variance that PyTorch would evaluate with. [C] */
export interface RunningStatistics {
  readonly mean: tf.Tensor1D;
  readonly variance: tf.Tensor1D;
}

/** The layer `<name>.weight`, `<name>.bias` if `<name>` is one: its weight is a vector. */
export function batchNormLayer(tensors: UnitTensors, name: string): BatchNormLayer | undefined {
  const weight = optionalParameter<tf.Tensor1D>(tensors, `${name}.weight`);
  if (weight?.rank !== 1) return undefined;
  return { name, weight, bias: parameterOf(tensors, `${name}.bias`) };
}

/** y [N,C] with the mean and the biased variance of these rows. `saved` owns x from here on; the caller owns both outputs. */
export function applyBatchNorm(
  layer: BatchNormLayer,
  x: tf.Tensor2D,
): { readonly y: tf.Tensor2D; readonly saved: BatchNormSaved } {
  const { y, mean, rstd } = tf.tidy(() => {
    const { mean, variance } = columnMoments(x);
    const rstd = tf.rsqrt(tf.add(variance, eps)) as tf.Tensor1D;
    const normal = tf.mul(tf.sub(x, mean), rstd);
    return { y: tf.add(tf.mul(normal, layer.weight), layer.bias) as tf.Tensor2D, mean, rstd };
  });
  return { y, saved: { x, mean, rstd } };
}

/** dx [N,C] for dy [N,C]; the parameters' gradients go into `grads`. The statistics depend on x, so their gradients are part of dx. */
export function backBatchNorm(
  layer: BatchNormLayer,
  dy: tf.Tensor2D,
  { x, mean, rstd }: BatchNormSaved,
  grads: Grads,
): tf.Tensor2D {
  const { dx, dweight, dbias } = tf.tidy(() => {
    const rows = x.shape[0];
    const normal = tf.mul(tf.sub(x, mean), rstd) as tf.Tensor2D;
    const dweight = columnSums(tf.mul(dy, normal));
    const dbias = columnSums(dy);
    const along = tf.add(tf.mul(normal, tf.div(dweight, rows)), tf.div(dbias, rows));
    const inner = tf.mul(tf.sub(dy, along), tf.mul(rstd, layer.weight)) as tf.Tensor2D;
    // Its columns have mean 0 but for rounding, which would be all of the gradient of a bias before this layer: taken off again.
    return { dx: tf.sub(inner, tf.div(columnSums(inner), rows)) as tf.Tensor2D, dweight, dbias };
  });
  grads[`${layer.name}.weight`] = dweight;
  grads[`${layer.name}.bias`] = dbias;
  return dx;
}

/**
 * The running statistics after these rows x [N,C], N >= 2: momentum 0.1, unbiased variance. Training never reads them, and teacher
 * and student are never evaluated with them; here for whoever exports a head. The caller owns the result.
 */
export function runningStatistics(before: RunningStatistics, x: tf.Tensor2D): RunningStatistics {
  return tf.tidy(() => {
    const { mean, variance } = columnMoments(x);
    const unbiased = tf.mul(variance, x.shape[0] / (x.shape[0] - 1));
    const fold = (old: tf.Tensor1D, now: tf.Tensor): tf.Tensor1D =>
      tf.add(tf.mul(old, 1 - momentum), tf.mul(now, momentum));
    return { mean: fold(before.mean, mean), variance: fold(before.variance, unbiased) };
  });
}

/** Mean and biased variance of each column, in two passes. */
function columnMoments(x: tf.Tensor2D): RunningStatistics {
  const rows = x.shape[0];
  const mean = tf.div(columnSums(x), rows) as tf.Tensor1D;
  const variance = tf.div(columnSums(tf.square(tf.sub(x, mean))), rows) as tf.Tensor1D;
  return { mean, variance };
}
