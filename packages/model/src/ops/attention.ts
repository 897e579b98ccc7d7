/**
 * Multi-head self-attention inside each sequence of a packed row sequence, and its gradient.
 * Shapes: T rows, C features, H heads, d = C / H; a group is `count` sequences of `length` rows, one after the other.
 */
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";

export interface SequenceGroup {
  readonly count: number;
  readonly length: number;
}

export interface AttentionOutput {
  /** [T,C] */
  readonly out: tf.Tensor2D;
  /** Log-sum-exp of the scores; its order is the engine's own. */
  readonly lse: tf.Tensor1D;
}

export interface AttentionShape {
  readonly numHeads: number;
  readonly groups: readonly SequenceGroup[];
}

/** softmax(q kT / sqrt d) v. @param qkv [T,3C], a row is q, k, v, each heads x d. The caller owns the outputs. */
export function attention(qkv: tf.Tensor2D, shape: AttentionShape): AttentionOutput {
  if (hasFused("PaddockAttention")) {
    const [out, lse] = runFused("PaddockAttention", { qkv }, shape);
    return { out: out as tf.Tensor2D, lse: lse as tf.Tensor1D };
  }
  return tf.tidy(() => {
    const outputs = splitGroups(qkv, shape).map(({ group, q, k, v }) => {
      const scores = scaledScores(q, k);
      const lse = tf.logSumExp(scores, 2, true) as tf.Tensor3D;
      const out = tf.matMul(tf.exp(tf.sub(scores, lse)), v) as tf.Tensor3D;
      return { out: mergeHeads(out, group, shape.numHeads), lse: tf.reshape(lse, [-1]) };
    });
    return {
      out: tf.concat(outputs.map((o) => o.out)) as tf.Tensor2D,
      lse: tf.concat(outputs.map((o) => o.lse)) as tf.Tensor1D,
    };
  });
}

/** dqkv [T,3C] for dy [T,C]; the caller owns it. */
export function attentionBackward(
  dy: tf.Tensor2D,
  qkv: tf.Tensor2D,
  { out, lse }: AttentionOutput,
  shape: AttentionShape,
): tf.Tensor2D {
  if (hasFused("PaddockAttentionBackward")) {
    return runFused("PaddockAttentionBackward", { dy, qkv, out, lse }, shape)[0] as tf.Tensor2D;
  }
  const { numHeads } = shape;
  return tf.tidy(() => {
    const pieces = splitGroups(qkv, shape).map(({ group, q, k, v, rowStart }) => {
      const rows = group.count * group.length;
      const splitRows = (x: tf.Tensor2D): tf.Tensor3D =>
        splitHeads(tf.slice(x, [rowStart, 0], [rows, -1]), group, numHeads);
      const dout = splitRows(dy);
      const groupLse = tf.reshape(tf.slice(lse, [rowStart * numHeads], [rows * numHeads]), [
        -1,
        group.length,
        1,
      ]);
      const p = tf.exp(tf.sub(scaledScores(q, k), groupLse)) as tf.Tensor3D;
      const dp = tf.matMul(dout, flip(v));
      const along = tf.sum(tf.mul(dout, splitRows(out)), 2, true);
      const scale = 1 / Math.sqrt(q.shape[2]);
      const dscores = tf.mul(tf.mul(p, tf.sub(dp, along)), scale) as tf.Tensor3D;
      const dq = tf.matMul(dscores, k);
      const dk = tf.matMul(flip(dscores), q);
      const dv = tf.matMul(flip(p), dout);
      const merged = [dq, dk, dv].map((d) => mergeHeads(d as tf.Tensor3D, group, numHeads));
      return tf.concat(merged, 1);
    });
    return tf.concat(pieces) as tf.Tensor2D;
  });
}

interface GroupHeads {
  readonly group: SequenceGroup;
  readonly rowStart: number;
  /** Each [count * H, length, d]. */
  readonly q: tf.Tensor3D;
  readonly k: tf.Tensor3D;
  readonly v: tf.Tensor3D;
}

function splitGroups(qkv: tf.Tensor2D, { numHeads, groups }: AttentionShape): GroupHeads[] {
  const width = qkv.shape[1] / 3;
  let rowStart = 0;
  return groups.map((group) => {
    const rows = group.count * group.length;
    const part = (i: number): tf.Tensor3D =>
      splitHeads(tf.slice(qkv, [rowStart, i * width], [rows, width]), group, numHeads);
    const heads = { group, rowStart, q: part(0), k: part(1), v: part(2) };
    rowStart += rows;
    return heads;
  });
}

/** [count * length, C] to [count * H, length, d] */
function splitHeads(
  x: tf.Tensor2D,
  { count, length }: SequenceGroup,
  numHeads: number,
): tf.Tensor3D {
  const perHead = tf.reshape(x, [count, length, numHeads, -1]);
  return tf.reshape(tf.transpose(perHead, [0, 2, 1, 3]), [count * numHeads, length, -1]);
}

/** [count * H, length, d] to [count * length, C] */
function mergeHeads(
  x: tf.Tensor3D,
  { count, length }: SequenceGroup,
  numHeads: number,
): tf.Tensor2D {
  const perHead = tf.reshape(x, [count, numHeads, length, -1]);
  return tf.reshape(tf.transpose(perHead, [0, 2, 1, 3]), [count * length, -1]);
}

function scaledScores(q: tf.Tensor3D, k: tf.Tensor3D): tf.Tensor3D {
  return tf.mul(tf.matMul(q, flip(k)), 1 / Math.sqrt(q.shape[2]));
}

function flip(x: tf.Tensor3D): tf.Tensor3D {
  return tf.transpose(x, [0, 2, 1]);
}
