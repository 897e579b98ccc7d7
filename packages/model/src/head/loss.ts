/** Scores, cross-entropy and backward of a head in one go. Shapes: N rows, D width, B bottleneck, K prototypes, M targets. */
import * as tf from "@tensorflow/tfjs-core";
import { crossEntropy } from "../ops/cross-entropy.js";
import { linear, linearBackward } from "../ops/linear.js";
import type { Grads } from "../vit/layers.js";
import type { Head } from "./head.js";
import { bottleneck, bottleneckBackward } from "./mlp.js";
import { backPrototypes, disposeWeights, prototypeWeights } from "./prototypes.js";

/** Scores held at once, so that memory does not grow with rows x prototypes: 32 MiB each of scores and gradient. */
const scoresPerChunk = 2 ** 23;

/** A run of consecutive rows and what they are to predict. */
export interface ScoreTargets {
  readonly count: number;
  /** [M,K] */
  readonly target: tf.Tensor2D;
  /** [count] row of `target` for each row. */
  readonly index: Int32Array;
  /** [count] factor of each row's loss. */
  readonly weight: Float32Array;
}

/** What a head's loss and backward give. The caller owns all tensors. */
export interface HeadLoss {
  /** Weighted cross-entropy of each row, one tensor per run of rows (empty runs have none). */
  readonly rows: readonly (tf.Tensor1D | undefined)[];
  /** [N,D] */
  readonly dh: tf.Tensor2D;
  readonly grads: Grads;
}

/**
 * Scores, loss and backward in chunks of rows: the scores of all rows are never held together.
 * @param h [N,D], left to the caller @param targets tile the rows in order
 */
export function headLoss(
  head: Head,
  h: tf.Tensor2D,
  targets: readonly ScoreTargets[],
  temperature: number,
): HeadLoss {
  const grads: Grads = {};
  const saved = bottleneck(head.mlp, h);
  const weights = prototypeWeights(head.prototypes);
  const { rows, dz, dw } = prototypeLoss(saved.unit.y, weights.w, targets, temperature);
  backPrototypes(head.prototypes, weights, dw, grads);
  disposeWeights(weights);
  const dh = bottleneckBackward(head.mlp, dz, saved, grads);
  return { rows, dh, grads };
}

/** Loss rows, dz [N,B] and dw [K,B] of the prototype layer. */
function prototypeLoss(
  z: tf.Tensor2D,
  w: tf.Tensor2D,
  targets: readonly ScoreTargets[],
  temperature: number,
): { rows: (tf.Tensor1D | undefined)[]; dz: tf.Tensor2D; dw: tf.Tensor2D } {
  const chunkRows = Math.max(64, Math.floor(scoresPerChunk / w.shape[0]));
  const dzPieces: tf.Tensor2D[] = [];
  let dw: tf.Tensor2D | undefined;
  let rowStart = 0;
  const rows = targets.map((run) => {
    const pieces: tf.Tensor1D[] = [];
    for (let start = 0; start < run.count; start += chunkRows) {
      const end = Math.min(start + chunkRows, run.count);
      const chunk = chunkLoss(z, w, run, rowStart, { start, end }, temperature);
      pieces.push(chunk.rows);
      dzPieces.push(chunk.dz);
      const sum: tf.Tensor2D = dw ? tf.add(dw, chunk.dw) : chunk.dw;
      if (dw) tf.dispose([dw, chunk.dw]);
      dw = sum;
    }
    rowStart += run.count;
    return joined(pieces);
  });
  return { rows, dz: joined(dzPieces) as tf.Tensor2D, dw: dw as tf.Tensor2D };
}

function chunkLoss(
  z: tf.Tensor2D,
  w: tf.Tensor2D,
  run: ScoreTargets,
  rowStart: number,
  { start, end }: { readonly start: number; readonly end: number },
  temperature: number,
): { rows: tf.Tensor1D; dz: tf.Tensor2D; dw: tf.Tensor2D } {
  return tf.tidy(() => {
    const part = tf.slice(z, [rowStart + start, 0], [end - start, -1]) as tf.Tensor2D;
    const logits = linear(part, w);
    const index = tf.tensor1d(run.index.subarray(start, end), "int32");
    const weight = tf.tensor1d(run.weight.subarray(start, end));
    const { rows, dlogits } = crossEntropy(
      { logits, target: run.target, index, weight },
      temperature,
    );
    logits.dispose();
    const { dw, dx } = linearBackward(dlogits, part, w, { needDx: true, hasBias: false });
    return { rows, dz: dx as tf.Tensor2D, dw };
  });
}

/** The concatenation of pieces, which it disposes; undefined for none. */
function joined<T extends tf.Tensor>(pieces: readonly T[]): T | undefined {
  if (pieces.length < 2) return pieces[0];
  const whole = tf.concat(pieces as T[]);
  tf.dispose(pieces as T[]);
  return whole;
}
