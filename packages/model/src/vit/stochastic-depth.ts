/**
 * Batch-subset stochastic depth: each branch runs on a subset of fixed size of each crop group's sequences, and its result
 * is scaled up by b / subset (dinov2 layers/block.py). The subset is drawn per rank, block, branch and group.
 */
import { rngOf, streams } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";

/** Which rows of the packed sequence take part in a branch. */
export interface RowSubset {
  /** int32 [S] */
  readonly rows: tf.Tensor1D;
  /** [S] b / subset of the row's group. */
  readonly rowScale: tf.Tensor1D;
  /** The sequences of the subset, packed. */
  readonly groups: readonly SequenceGroup[];
}

/** Where a subset is drawn: branch 0 is attention, 1 the feed-forward; group 0 global crops, 1 local. */
export interface SubsetKey {
  readonly rank: number;
  readonly block: number;
  readonly branch: 0 | 1;
  readonly group: number;
}

/** Indices of the `keep` sequences out of `count`, without repetition, in any order. */
export type ChooseSequences = (key: SubsetKey, count: number, keep: number) => Int32Array;

/** The choice of a run: a pure function of seed, step and key. */
export function chooseSequencesOf(seed: number, step: number): ChooseSequences {
  return ({ rank, block, branch, group }, count, keep) =>
    rngOf(seed, streams.dropPath, step, rank, block, branch, group)
      .permutation(count)
      .subarray(0, keep);
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
): RowSubset | undefined {
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
