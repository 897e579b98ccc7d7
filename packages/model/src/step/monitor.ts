/**
 * Signs of collapse, from what a step computes anyway; they change none of its results.
 * B images per rank, D width, K prototypes, N = 2B global crops.
 *
 * The teacher's outputs p_i [K] for the N crops of a rank split ln K into three parts, none negative:
 *
 *   ln K = H + I + KL     H   mean entropy of p_i: how soft an output is
 *                         KL  of the mean output to uniform: how unevenly prototypes are used
 *                         I   mean KL of p_i to the mean output: what outputs say about their image, at most ln N
 *
 * A collapsed teacher says the same about every image, I = 0, and H is ln K (uniform) or KL is (one prototype has everything): the two
 * that DINO describes in section 5.3. With a softmax centre p_i is the student's target. Sinkhorn makes the mean of its targets uniform by
 * construction, which hides what this is to show: there p_i is the softmax of scores over temperature, before Sinkhorn.
 */
import type { RunSpec } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { applyPending, type Centers } from "../loss/centering.js";
import type { StepContext, Watch } from "./context.js";
import type { RankBatch, RankMonitor } from "./contract.js";
import { spreadOf } from "./spread.js";

/** Crops whose features are looked at, at most: eigenvalues cost their third power. */
const maxFeatures = 64;

/** An empty watch if `step` is one that is looked at. */
export function watchOf({ monitor }: RunSpec, step: number): Watch | undefined {
  const isDue = monitor.everySteps > 0 && step % monitor.everySteps === 0;
  return isDue ? { features: [], outputs: [] } : undefined;
}

/** Looks at one rank's normed teacher rows h, cls of the global crops first; leaves them to the caller. */
export function watchFeatures({ watch, spec }: StepContext, h: tf.Tensor2D): void {
  if (!watch) return;
  const count = Math.min(maxFeatures, 2 * spec.batchPerRank);
  watch.features.push(tf.slice(h, [0, 0], [count, -1]));
}

/** Looks at the teacher's scores [N,K] of each rank, which it leaves to the caller. */
export function watchScores(
  { watch, spec, scalars }: StepContext,
  scores: readonly (tf.Tensor2D | undefined)[],
  centers: Centers,
): void {
  if (!watch) return;
  const center = applyPending(centers, spec.loss.centerMomentum).dino;
  for (const scores_NK of scores) {
    if (scores_NK) watch.outputs.push(entropies(scores_NK, center, scalars.teacherTemperature));
  }
}

/** What the local ranks' watches came to; empty when nothing is watched. Disposes the watch's tensors. */
export async function readWatch({ watch, batches, spec }: StepContext): Promise<RankMonitor[]> {
  if (!watch) return [];
  const uniform = Math.log(spec.heads.dino.prototypes);
  const monitors = await Promise.all(
    batches.map(async (batch: RankBatch, r): Promise<RankMonitor> => {
      const features_nD = watch.features[r] as tf.Tensor2D;
      const outputs = watch.outputs[r] as tf.Tensor1D;
      const features = await features_nD.data();
      const [entropy, ofMean] = (await outputs.data()) as unknown as [number, number];
      return {
        rank: batch.rank,
        teacherEntropy: entropy,
        klToUniform: uniform - ofMean,
        ...spreadOf(features, features_nD.shape[0]),
      };
    }),
  );
  tf.dispose([...watch.features, ...watch.outputs]);
  return monitors;
}

/** [2], the caller's: mean entropy of softmax((scores - centre) / temperature) over the rows, and the entropy of their mean. */
export function entropies(
  scores_NK: tf.Tensor2D,
  center: Float32Array | null,
  temperature: number,
): tf.Tensor1D {
  return tf.tidy(() => {
    const centred = center ? tf.sub(scores_NK, tf.tensor1d(center)) : scores_NK;
    const p_NK = tf.softmax(tf.div(centred, temperature)) as tf.Tensor2D;
    const rows = p_NK.shape[0];
    const mean_1K = tf.div(tf.matMul(tf.ones([1, rows]), p_NK), rows);
    return tf.stack([tf.mean(entropy(p_NK)), tf.mean(entropy(mean_1K))]) as tf.Tensor1D;
  });
}

/** [N] of the rows' probabilities; 0 ln 0 is 0. */
function entropy(p: tf.Tensor): tf.Tensor {
  const smallest = 1e-37; // a normal number: some engines flush smaller ones to 0
  return tf.neg(tf.sum(tf.mul(p, tf.log(tf.maximum(p, smallest))), -1));
}
