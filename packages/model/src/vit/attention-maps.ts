/** Attention probabilities for people to look at: training never holds them. */
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";

/**
 * softmax(q kT / sqrt d) of every token [n,H,N,N], a row per query; owned by the caller.
 * @param qkv [n * N,3C] as a block's attention saw it: n sequences of N rows.
 */
export function attentionMaps(
  qkv: tf.Tensor2D,
  heads: number,
  { count, length }: SequenceGroup,
): tf.Tensor4D {
  return tf.tidy(() => {
    const split = tf.reshape(qkv, [count, length, 3 * heads, -1]);
    const part = (which: number) =>
      tf.transpose(tf.slice(split, [0, 0, which * heads, 0], [-1, -1, heads, -1]), [0, 2, 1, 3]);
    const [q, k] = [part(0), part(1)];
    const scores = tf.matMul(q, tf.transpose(k, [0, 1, 3, 2]));
    return tf.softmax(tf.div(scores, Math.sqrt(q.shape[3] as number))) as tf.Tensor4D;
  });
}
