/** The rows of the backbone's output that a loss or an evaluation looks at, and the final norm on just these. */
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import { gatherRows, scatterAddRows } from "../ops/rows.js";
import type { UnitTensors } from "../tensors.js";
import type { VitConfig } from "./config.js";
import { applyNorm, backNorm, type Grads, type NormStats, normLayer } from "./layers.js";

/** Packed row of the cls token of sequence `sequence` of group `group`. */
function clsRow(groups: readonly SequenceGroup[], group: number, sequence: number): number {
  let start = 0;
  for (let g = 0; g < group; g++) {
    const { count, length } = groups[g] as SequenceGroup;
    start += count * length;
  }
  return start + sequence * (groups[group] as SequenceGroup).length;
}

/** Packed rows of the cls tokens of a group, in order. */
export function clsRows(groups: readonly SequenceGroup[], group: number): number[] {
  const { count } = groups[group] as SequenceGroup;
  return Array.from({ length: count }, (_, i) => clsRow(groups, group, i));
}

/** Packed rows of patches of group 0, given flat as i * P + p. */
export function patchRows(
  groups: readonly SequenceGroup[],
  registers: number,
  flat: Iterable<number>,
): number[] {
  const skipped = 1 + registers;
  const patches = (groups[0] as SequenceGroup).length - skipped;
  return Array.from(
    flat,
    (at) => clsRow(groups, 0, Math.floor(at / patches)) + skipped + (at % patches),
  );
}

/** What `outputBackward` needs. */
export interface OutputSaved {
  readonly rows: tf.Tensor1D;
  /** [S,D] the rows before the norm. */
  readonly selected: tf.Tensor2D;
  readonly stats: NormStats;
  /** T */
  readonly packedRows: number;
}

/** h [S,D] = norm(x[rows]). Leaves x to the caller, who owns both outputs. */
export function output(
  config: VitConfig,
  tensors: UnitTensors,
  x: tf.Tensor2D,
  rows: readonly number[],
): { readonly h: tf.Tensor2D; readonly saved: OutputSaved } {
  const index = tf.tensor1d(Int32Array.from(rows), "int32");
  const selected = gatherRows(x, index);
  const { y: h, ...stats } = applyNorm(finalNorm(config, tensors), selected);
  return { h, saved: { rows: index, selected, stats, packedRows: x.shape[0] } };
}

/** dx [T,D] for dh [S,D]; zero at rows that were not selected. Disposes dh and `saved`. */
export function outputBackward(
  config: VitConfig,
  tensors: UnitTensors,
  dh: tf.Tensor2D,
  saved: OutputSaved,
): { readonly dx: tf.Tensor2D; readonly grads: Grads } {
  const grads: Grads = {};
  const { rows, selected, stats, packedRows } = saved;
  const dselected = backNorm(finalNorm(config, tensors), dh, selected, stats, grads);
  const zeros = tf.zeros<tf.Rank.R2>([packedRows, config.width]);
  const dx = scatterAddRows(zeros, dselected, rows);
  tf.dispose([zeros, dselected, dh, rows, selected, stats.mean, stats.rstd]);
  return { dx, grads };
}

function finalNorm(config: VitConfig, tensors: UnitTensors) {
  return normLayer(tensors, "backbone.norm", config.normEps);
}
