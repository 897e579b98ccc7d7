/** Soft-target cross-entropy over prototypes, with its gradient in one pass. Shapes: N rows, M targets, K prototypes. */
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";

export interface CrossEntropyInputs {
  /** [N,K] raw scores. */
  readonly logits: tf.Tensor2D;
  /** [M,K]; rows need not sum to 1. */
  readonly target: tf.Tensor2D;
  /** int32 [N] in [0,M): the target of each row. */
  readonly index: tf.Tensor1D;
  /** [N] factor of each row. */
  readonly weight: tf.Tensor1D;
}

/**
 * rows [N] = -weight * sum_k target[index] * logSoftmax(logits / temperature), in nats, and dlogits [N,K] = d sum(rows) /
 * d logits. The caller owns both. Reference: DINO, eq. 1 and 3.
 */
export function crossEntropy(
  { logits, target, index, weight }: CrossEntropyInputs,
  temperature: number,
): { readonly rows: tf.Tensor1D; readonly dlogits: tf.Tensor2D } {
  if (hasFused("PaddockCrossEntropy")) {
    const inputs = { logits, target, index, weight };
    const [rows, dlogits] = runFused("PaddockCrossEntropy", inputs, { temperature });
    return { rows: rows as tf.Tensor1D, dlogits: dlogits as tf.Tensor2D };
  }
  return tf.tidy(() => {
    const targets = tf.gather(target, index);
    const scaled = tf.div(logits, temperature);
    const logP = tf.sub(scaled, tf.logSumExp(scaled, 1, true));
    const rows = tf.mul(tf.neg(weight), tf.sum(tf.mul(targets, logP), 1)) as tf.Tensor1D;
    const mass = tf.sum(targets, 1, true);
    const slope = tf.reshape(tf.div(weight, temperature), [-1, 1]);
    const dlogits = tf.mul(tf.sub(tf.mul(tf.exp(logP), mass), targets), slope);
    return { rows, dlogits: dlogits as tf.Tensor2D };
  });
}
