/**
 * Stochastic depth, drawn per rank, block, branch and crop group. By subset (dinov2 and dinov3 layers/block.py): a branch runs on
 * a subset of fixed size of each group's sequences, and its result is scaled up by b / subset. By sample (dino
 * vision_transformer.py): it runs on all, and each sequence's result is dropped or scaled up by 1 / keep.
 */
import { rngOf, streams } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";

/** The rows of a branch and their factors. */
export interface BranchRows {
  /** int32 [S]: the rows of the packed sequence that take part; absent if all do (S = T). */
  readonly rows?: tf.Tensor1D;
  /** [S] factor of each row's result. */
  readonly rowScale: tf.Tensor1D;
  /** The sequences that take part, packed. */
  readonly groups: readonly SequenceGroup[];
}

/** Where something is drawn: branch 0 is attention, 1 the feed-forward; group 0 global crops, 1 local. */
export interface BranchKey {
  readonly rank: number;
  readonly block: number;
  readonly branch: 0 | 1;
  readonly group: number;
}

/** Indices of the `keep` sequences out of `count`, without repetition, in any order. */
export type ChooseSequences = (key: BranchKey, count: number, keep: number) => Int32Array;

/** Numbers in [0, 1), one per sequence: with rate p, the sequence is dropped if its number is below p. */
export type DrawUniforms = (key: BranchKey, count: number) => ArrayLike<number>;

/** The choice of a run: a pure function of seed, step and key. */
export function chooseSequencesOf(seed: number, step: number): ChooseSequences {
  return ({ rank, block, branch, group }, count, keep) =>
    rngOf(seed, streams.dropPath, step, rank, block, branch, group)
      .permutation(count)
      .subarray(0, keep);
}

/** The numbers of a run: a pure function of seed, step and key. */
export function drawUniformsOf(seed: number, step: number): DrawUniforms {
  return ({ rank, block, branch, group }, count) => {
    const rng = rngOf(seed, streams.dropPath, step, rank, block, branch, group);
    return Float32Array.from({ length: count }, () => rng.uniform());
  };
}

/** How many of `count` sequences a branch with drop rate `rate` runs on. */
export function subsetSize(count: number, rate: number): number {
  return Math.max(Math.floor(count * (1 - rate)), 1);
}

/** The rows of a branch, or undefined if nothing is dropped. The caller owns the tensors. */
export function drawSubset(
  groups: readonly SequenceGroup[],
  rate: number,
  choose: (group: number, count: number, keep: number) => Int32Array,
): BranchRows | undefined {
  if (rate === 0) return undefined;
  const rows: number[] = [];
  const scales: number[] = [];
  let start = 0;
  const chosen = groups.map(({ count, length }, group) => {
    const keep = subsetSize(count, rate);
    for (const sequence of choose(group, count, keep)) {
      for (let i = 0; i < length; i++) {
        rows.push(start + sequence * length + i);
        scales.push(count / keep);
      }
    }
    start += count * length;
    return { count: keep, length };
  });
  return {
    rows: tf.tensor1d(Int32Array.from(rows), "int32"),
    rowScale: tf.tensor1d(Float32Array.from(scales)),
    groups: chosen,
  };
}

/** All rows with the factors of per-sample stochastic depth, or undefined if nothing is dropped. The caller owns the tensors. */
export function drawSamples(
  groups: readonly SequenceGroup[],
  rate: number,
  uniforms: (group: number, count: number) => ArrayLike<number>,
): BranchRows | undefined {
  if (rate === 0) return undefined;
  const keep = 1 - rate;
  const scales = groups.flatMap(({ count, length }, group) =>
    // As the official code does in float32: floor(keep + u) / keep.
    Array.from(uniforms(group, count), (u) => Math.floor(Math.fround(keep + u)) / keep).flatMap(
      (scale) => new Array<number>(length).fill(scale),
    ),
  );
  return { rowScale: tf.tensor1d(Float32Array.from(scales)), groups };
}
