/** What each student row is to predict, and how much it weighs. Shapes: B images per rank, K prototypes. */
import type { RunSpec, StepScalars } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import type { ScoreTargets } from "../head/loss.js";
import { localRows } from "./context.js";

/** Factors on the gradient that the spec's weights do not hold; 1 by default. */
export interface DinoFactors {
  readonly lossScale?: number;
  readonly localWeight?: StepScalars["localWeight"];
}

/** Pairs of a student crop and a teacher crop of an image: local with global, and global with global. */
export function dinoPairs({ crops, loss }: Pick<RunSpec, "crops" | "loss">): {
  readonly local: number;
  readonly global: number;
} {
  return { local: 2 * crops.localCount, global: loss.samePairs ? 4 : 2 };
}

/**
 * Cross-entropy of all student views against the teacher views (DINO, eq. 3), normalised jointly: each pair weighs
 * 1 / number of pairs. A local crop meets both teacher views, whose probabilities are added up first; a global crop meets the
 * other one, or with `samePairs` both. Rows: local crops, then global crops. The caller disposes `target`.
 * @param cls [2B,K] teacher's probabilities
 */
export function dinoTargets(
  spec: Pick<RunSpec, "crops" | "loss" | "batchPerRank">,
  cls: tf.Tensor2D,
  { lossScale = 1, localWeight = 1 }: DinoFactors = {},
): ScoreTargets {
  const { batchPerRank: images, loss } = spec;
  const locals = localRows(spec);
  const count = locals + 2 * images;
  const { local, global } = dinoPairs(spec);
  const target = tf.tidy(() => {
    if (locals === 0 && !loss.samePairs) return tf.clone(cls);
    const both = tf.add(tf.slice(cls, 0, images), tf.slice(cls, images, images));
    return tf.concat([cls, both]) as tf.Tensor2D;
  });
  const bothOf = (row: number): number => 2 * images + (row % images);
  const otherOf = (row: number): number => (row + images) % (2 * images);
  const globalOf = loss.samePairs ? bothOf : otherOf;
  const index = Int32Array.from({ length: count }, (_, row) =>
    row < locals ? bothOf(row) : globalOf(row - locals),
  );
  const each = (lossScale * loss.dino) / ((local + global) * images);
  const weight = new Float32Array(count).fill(each);
  weight.fill(each * localWeight, 0, locals);
  return { count, target, index, weight };
}

/**
 * Cross-entropy at masked patches, each weighed by 1 / (masked patches of its crop), over all `crops`, masked or not.
 * @param target [masked,K] teacher's probabilities, left to the caller @param maskWeights 1 / (masked patches of its crop)
 */
export function ibotTargets(
  target: tf.Tensor2D,
  maskWeights: Float32Array,
  { crops, factor }: { readonly crops: number; readonly factor: number },
): ScoreTargets {
  const [count] = target.shape;
  return {
    count,
    target,
    index: Int32Array.from({ length: count }, (_, row) => row),
    weight: maskWeights.map((weight) => weight * (factor / crops)),
  };
}
