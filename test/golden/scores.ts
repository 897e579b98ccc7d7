/** Scores, targets and cross-entropies of the loss files. Shapes: N rows, K prototypes. */
import {
  type Centers,
  crossEntropy,
  launchMeans,
  readMeans,
  type ScoreTargets,
  sinkhorn,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import type { Golden } from "./file.js";

/** One rank: its vector is the sum. */
const alone = async (_key: string, [vector]: readonly Float32Array[]) => vector as Float32Array;

/** A recorded tensor as rows [N,width], whatever axes it has before the last one. */
export function rowsOf(golden: Golden, name: string, width: number): tf.Tensor2D {
  const values = golden.f32(name);
  return tf.tensor2d(values, [values.length / width, width]);
}

/** The centres of `which` before the first step. */
export function zeroCenters(which: "dino" | "ibot", prototypes: number): Centers {
  const none = { dino: null, ibot: null, pendingDino: null, pendingIbot: null };
  return { ...none, [which]: new Float32Array(prototypes) };
}

/** Mean scores of a batch on one rank, to be folded into a centre. Leaves the scores to the caller. */
export async function batchMean(
  which: "dino" | "ibot",
  scores: tf.Tensor2D,
): Promise<Float32Array> {
  const prototypes = scores.shape[1];
  if (which === "dino") {
    const sizes = { dino: prototypes, ibot: 0, logicalRanks: 1 };
    return (await readMeans(launchMeans([scores], []), sizes, alone)).dino;
  }
  const nothing = tf.zeros<tf.Rank.R2>([1, 1]);
  const launched = launchMeans([nothing], [scores]);
  nothing.dispose();
  const { ibot } = await readMeans(launched, { dino: 1, ibot: prototypes, logicalRanks: 1 }, alone);
  return ibot ?? new Float32Array(prototypes);
}

/** Sinkhorn-Knopp on one rank, three iterations; leaves the scores to the caller. The recorded scores are not bounded by 1. */
export async function assigned(scores: tf.Tensor2D, temperature: number): Promise<tf.Tensor2D> {
  const bound = (scores.dataSync() as Float32Array).reduce(
    (largest, x) => Math.max(largest, Math.abs(x)),
    0,
  );
  const losses = [{ scores: [tf.clone(scores)], prototypes: scores.shape[1], bound }];
  const [targets] = await sinkhorn(losses, { temperature, iterations: 3 }, alone);
  return targets?.[0] as tf.Tensor2D;
}

/** Loss of each row [N] and gradient [N,K] of their sum. Leaves logits and target to the caller. */
export function entropyOf(
  logits: tf.Tensor2D,
  run: ScoreTargets,
  temperature: number,
): { readonly rows: Float32Array; readonly gradient: Float32Array } {
  const index = tf.tensor1d(run.index, "int32");
  const weight = tf.tensor1d(run.weight);
  const { rows, dlogits } = crossEntropy(
    { logits, target: run.target, index, weight },
    temperature,
  );
  const values = {
    rows: rows.dataSync() as Float32Array,
    gradient: dlogits.dataSync() as Float32Array,
  };
  tf.dispose([index, weight, rows, dlogits]);
  return values;
}

export function sumOf(values: Float32Array): number {
  return values.reduce((total, value) => total + value, 0);
}
