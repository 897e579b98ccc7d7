/**
 * KoLeo: -mean log distance to the nearest neighbour among L2-normalised features (dinov2 loss/koleo_loss.py).
 * Shapes: n features of one crop of one rank, D width.
 */
import * as tf from "@tensorflow/tfjs-core";
import { l2Normalize, l2NormalizeBackward } from "../ops/l2-normalize.js";
import { gatherRows, scatterAddRows } from "../ops/rows.js";

const eps = 1e-8;

export interface KoleoOutput {
  /** Scalar, not weighted. */
  readonly loss: tf.Scalar;
  /** [n,D] gradient of weight * loss. */
  readonly dx: tf.Tensor2D;
  /** int32 [n] nearest neighbour of each row. */
  readonly neighbours: tf.Tensor1D;
}

/** @param x [n,D] with n >= 2. The caller owns the outputs. */
export function koleo(x: tf.Tensor2D, weight: number): KoleoOutput {
  return tf.tidy(() => {
    const n = x.shape[0];
    const unit = l2Normalize(x, eps);
    const neighbours = nearestNeighbours(unit.y);
    // torch.nn.PairwiseDistance adds eps to every component of the difference.
    const difference = tf.add(tf.sub(unit.y, gatherRows(unit.y, neighbours)), eps);
    const distance = tf.sqrt(tf.sum(tf.square(difference), 1, true));
    const loss = tf.neg(tf.mean(tf.log(tf.add(distance, eps)))) as tf.Scalar;
    const slope = tf.div(-weight / n, tf.mul(tf.add(distance, eps), distance));
    const toward = tf.mul(difference, slope) as tf.Tensor2D;
    // The gradient reaches both ends of each pair; the choice of the neighbour has none.
    const dunit = scatterAddRows(toward, tf.neg(toward), neighbours);
    return { loss, dx: l2NormalizeBackward(dunit, unit), neighbours };
  });
}

/** Row of the largest inner product with another row. */
function nearestNeighbours(unit: tf.Tensor2D): tf.Tensor1D {
  const n = unit.shape[0];
  const dots = tf.matMul(unit, tf.transpose(unit));
  const diagonal = new Float32Array(n * n);
  // Inner products of unit rows are at least -1: 3 below that is never chosen.
  for (let i = 0; i < n; i++) diagonal[i * (n + 1)] = -3;
  return tf.argMax(tf.add(dots, tf.tensor2d(diagonal, [n, n])), 1);
}
