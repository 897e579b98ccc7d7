/**
 * KoLeo: -mean log distance to the nearest neighbours among L2-normalised features (koleo_loss.py of dinov2 and dinov3).
 * Shapes: n features of one crop, of one rank or of the ranks of a group; D width; k neighbours of each.
 */
import { invariant } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "../ops/fused.js";
import { l2Normalize, l2NormalizeBackward } from "../ops/l2-normalize.js";
import { gatherRows, scatterAddRows } from "../ops/rows.js";

const eps = 1e-8;

export interface KoleoOutput {
  /** Scalar, not weighted. */
  readonly loss: tf.Scalar;
  /** [n,D] gradient of weight * loss. */
  readonly dx: tf.Tensor2D;
  /** int32 [n * k] nearest neighbours of each row, the nearest first. */
  readonly neighbours: tf.Tensor1D;
}

export interface GroupKoleoOutput extends Omit<KoleoOutput, "loss"> {
  /** Each rank's own loss, a mean over its rows; not weighted. */
  readonly losses: readonly tf.Scalar[];
  /** [n,D] gradient of weight * the sum of all ranks' losses: a row is also a neighbour of other ranks' rows. */
  readonly dx: tf.Tensor2D;
}

/** The loss of one rank whose neighbours are its own rows. @param x [n,D] with n > topk. The caller owns the outputs. */
export function koleo(x: tf.Tensor2D, weight: number, topk = 1): KoleoOutput {
  const { losses, dx, neighbours } = groupKoleo(x, weight, { topk, ranks: 1 });
  return { loss: losses[0] as tf.Scalar, dx, neighbours };
}

/**
 * The losses of the ranks of a group, who find their neighbours among all rows (dinov3's KoLeoLossDistributed, whose gather passes
 * gradients back). @param x [n,D], the ranks' rows one after the other, as many of each. The caller owns the outputs.
 */
export function groupKoleo(
  x: tf.Tensor2D,
  weight: number,
  { topk, ranks }: { readonly topk: number; readonly ranks: number },
): GroupKoleoOutput {
  invariant(x.shape[0] % ranks === 0, `${x.shape[0]} rows are not those of ${ranks} equal ranks`);
  const outputs = hasFused("PaddockKoleo")
    ? runFused("PaddockKoleo", { x }, { topk, ranks, weight, eps })
    : composed(x, weight, topk, ranks);
  const [dx, neighbours, ...losses] = outputs;
  return {
    losses: losses as tf.Scalar[],
    dx: dx as tf.Tensor2D,
    neighbours: neighbours as tf.Tensor1D,
  };
}

/** (dx, neighbours, each rank's loss). */
function composed(x: tf.Tensor2D, weight: number, topk: number, ranks: number): tf.Tensor[] {
  const terms = (x.shape[0] / ranks) * topk;
  return tf.tidy(() => {
    const unit = l2Normalize(x, eps);
    const neighbours = nearestNeighbours(unit.y, topk);
    // torch.nn.PairwiseDistance adds eps to every component of the difference.
    const difference = tf.add(
      tf.sub(repeated(unit.y, topk), gatherRows(unit.y, neighbours)),
      eps,
    ) as tf.Tensor2D;
    const distance = tf.sqrt(tf.sum(tf.square(difference), 1, true)) as tf.Tensor2D;
    const logs = tf.log(tf.add(distance, eps));
    const losses = Array.from({ length: ranks }, (_, rank) =>
      tf.neg(tf.mean(ranks === 1 ? logs : tf.slice(logs, rank * terms, terms))),
    );
    const slope = tf.div(-weight / terms, tf.mul(tf.add(distance, eps), distance));
    const toward = tf.mul(difference, slope) as tf.Tensor2D;
    // The gradient reaches both ends of each pair; the choice of the neighbour has none.
    const dunit = scatterAddRows(summed(toward, topk), tf.neg(toward), neighbours);
    return [l2NormalizeBackward(dunit, unit), neighbours, ...losses];
  });
}

/** Rows of the largest inner products with other rows, flat [n * k]. */
function nearestNeighbours(unit: tf.Tensor2D, topk: number): tf.Tensor1D {
  const n = unit.shape[0];
  const dots = tf.matMul(unit, tf.transpose(unit));
  const diagonal = new Float32Array(n * n);
  // Inner products of unit rows are at least -1: 3 below that comes last.
  for (let i = 0; i < n; i++) diagonal[i * (n + 1)] = -3;
  const others = tf.add(dots, tf.tensor2d(diagonal, [n, n]));
  if (topk === 1) return tf.argMax(others, 1);
  return tf.reshape(tf.topk(others, topk).indices, [n * topk]);
}

/** Each row k times in a row: [n * k, D]. */
function repeated(x: tf.Tensor2D, topk: number): tf.Tensor2D {
  if (topk === 1) return x;
  const rows = Int32Array.from({ length: x.shape[0] * topk }, (_, i) => Math.floor(i / topk));
  return gatherRows(x, tf.tensor1d(rows, "int32"));
}

/** Its transpose: the sum of each k rows. */
function summed(x: tf.Tensor2D, topk: number): tf.Tensor2D {
  if (topk === 1) return x;
  return tf.sum(tf.reshape(x, [x.shape[0] / topk, topk, x.shape[1]]), 1);
}
