/**
 * Multi-head self-attention inside each sequence of a packed row sequence, and its gradient.
 * Shapes: T rows, C features, H heads, d = C / H; a group is `count` sequences of `length` rows, one after the other.
 */
import * as tf from "@tensorflow/tfjs-core";
import { batchMatMul } from "./batch-mat-mul.js";
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
  const { numHeads } = shape;
  return tf.tidy(() => {
    const outputs = groupsOf(qkv, shape.groups).map(({ group, rows }) => {
      const [q, k, v] = splitHeads(rows, group, 3 * numHeads, 3);
      const scores = scaledScores(q as tf.Tensor3D, k as tf.Tensor3D);
      const lse = tf.logSumExp(scores, 2, true) as tf.Tensor3D;
      const out = batchMatMul(tf.exp(tf.sub(scores, lse)), v as tf.Tensor3D);
      return { out: mergeHeads([out], group, numHeads), lse: tf.reshape(lse, [-1]) };
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
  const { numHeads, groups } = shape;
  return tf.tidy(() => {
    const [dys, outs] = [groupsOf(dy, groups), groupsOf(out, groups)];
    const pieces = groupsOf(qkv, groups).map(({ group, rows, start }, g) => {
      const [q, k, v] = splitHeads(rows, group, 3 * numHeads, 3) as Heads;
      const [dout] = splitHeads(rowsOf(dys, g), group, numHeads, 1) as [tf.Tensor3D];
      const [o] = splitHeads(rowsOf(outs, g), group, numHeads, 1) as [tf.Tensor3D];
      const count = group.count * group.length * numHeads;
      const groupLse = tf.reshape(tf.slice(lse, start * numHeads, count), [-1, group.length, 1]);
      const p = tf.exp(tf.sub(scaledScores(q, k), groupLse)) as tf.Tensor3D;
      const dp = batchMatMul(dout, flip(v));
      const along = tf.sum(tf.mul(dout, o), 2, true);
      const scale = 1 / Math.sqrt(q.shape[2]);
      const dscores = tf.mul(tf.mul(p, tf.sub(dp, along)), scale) as tf.Tensor3D;
      const dq = batchMatMul(dscores, k);
      const dk = batchMatMul(flip(dscores), q);
      const dv = batchMatMul(flip(p), dout);
      return mergeHeads([dq, dk, dv], group, 3 * numHeads);
    });
    return tf.concat(pieces) as tf.Tensor2D;
  });
}

type Heads = [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D];

interface GroupRows {
  readonly group: SequenceGroup;
  readonly start: number;
  readonly rows: tf.Tensor2D;
}

/** The rows of each group. */
function groupsOf(x: tf.Tensor2D, groups: readonly SequenceGroup[]): GroupRows[] {
  let end = 0;
  return groups.map((group) => {
    const start = end;
    end += group.count * group.length;
    const rows = groups.length === 1 ? x : tf.slice(x, [start, 0], [end - start, -1]);
    return { group, start, rows: rows as tf.Tensor2D };
  });
}

function rowsOf(groups: readonly GroupRows[], index: number): tf.Tensor2D {
  return (groups[index] as GroupRows).rows;
}

/** [count * length, heads * d] to `parts` tensors [heads / parts * count, length, d]. */
function splitHeads(
  x: tf.Tensor2D,
  { count, length }: SequenceGroup,
  heads: number,
  parts: number,
): tf.Tensor3D[] {
  const perHead = tf.transpose(tf.reshape(x, [count, length, heads, -1]), [2, 0, 1, 3]);
  const packed = tf.reshape(perHead, [heads * count, length, -1]) as tf.Tensor3D;
  return parts === 1 ? [packed] : tf.split(packed, parts);
}

/** Undoes `splitHeads`: parts [heads / parts * count, length, d] to [count * length, heads * d]. */
function mergeHeads(
  parts: readonly tf.Tensor3D[],
  { count, length }: SequenceGroup,
  heads: number,
): tf.Tensor2D {
  const packed = parts.length === 1 ? (parts[0] as tf.Tensor3D) : tf.concat([...parts]);
  const perHead = tf.reshape(packed, [heads, count, length, -1]);
  return tf.reshape(tf.transpose(perHead, [1, 2, 0, 3]), [count * length, -1]);
}

function scaledScores(q: tf.Tensor3D, k: tf.Tensor3D): tf.Tensor3D {
  return tf.mul(batchMatMul(q, flip(k)), 1 / Math.sqrt(q.shape[2]));
}

function flip(x: tf.Tensor3D): tf.Tensor3D {
  return tf.transpose(x, [0, 2, 1]);
}
