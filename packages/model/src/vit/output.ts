/**
 * The rows of the backbone's output that a loss or an evaluation looks at, and the final norm on just these. Models may have norms of
 * their own for cls tokens and registers, and for those of local crops in training (dinov3 models/vision_transformer.py).
 */
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import { gatherRows, scatterAddRows } from "../ops/rows.js";
import type { UnitTensors } from "../tensors.js";
import type { VitConfig } from "./config.js";
import {
  addGrads,
  applyNorm,
  backNorm,
  type Grads,
  type NormLayer,
  type NormStats,
  normLayer,
  statsOf,
} from "./layers.js";

/** What a row is: cls or register; that of a local crop in training; patch. */
export type TokenKind = "cls" | "localCls" | "patch";

/** Packed rows of tokens of one kind. */
export interface OutputRows {
  readonly kind: TokenKind;
  readonly rows: readonly number[];
}

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
  /** Neighbouring rows that share a norm, in the order of `rows`. */
  readonly runs: readonly {
    readonly norm: string;
    /** [S',D] the rows before the norm. */
    readonly selected: tf.Tensor2D;
    readonly stats: NormStats;
  }[];
  /** T */
  readonly packedRows: number;
}

/** h [S,D] = norm(x[rows]), the parts one after the other. Leaves x to the caller, who owns both outputs. */
export function output(
  config: VitConfig,
  tensors: UnitTensors,
  x: tf.Tensor2D,
  parts: readonly OutputRows[],
): { readonly h: tf.Tensor2D; readonly saved: OutputSaved } {
  const index = tf.tensor1d(Int32Array.from(parts.flatMap(({ rows }) => rows)), "int32");
  const runs = runsOf(tensors, parts);
  const pieces = splitRows(gatherRows(x, index), runs);
  const normed = pieces.map((selected, i) => {
    const norm = (runs[i] as Run).norm;
    const { y, ...stats } = applyNorm(finalNorm(config, tensors, norm), selected);
    return { y, run: { norm, selected, stats } };
  });
  const h = joinRows(normed.map(({ y }) => y));
  const saved = { rows: index, runs: normed.map(({ run }) => run), packedRows: x.shape[0] };
  return { h, saved };
}

/** Disposes what `outputBackward` would have needed. */
export function disposeOutput({ rows, runs }: OutputSaved): void {
  rows.dispose();
  for (const { selected, stats } of runs) tf.dispose([selected, ...statsOf(stats)]);
}

/** dx [T,D] for dh [S,D]; zero at rows that were not selected. Disposes dh and `saved`. */
export function outputBackward(
  config: VitConfig,
  tensors: UnitTensors,
  dh: tf.Tensor2D,
  saved: OutputSaved,
): { readonly dx: tf.Tensor2D; readonly grads: Grads } {
  const grads: Grads = {};
  const { rows, runs, packedRows } = saved;
  const sizes = runs.map(({ selected }) => ({ count: selected.shape[0] }));
  const dys = splitRows(dh, sizes);
  const dselected = joinRows(
    runs.map(({ norm, selected, stats }, i) => {
      const ofRun: Grads = {};
      const dy = dys[i] as tf.Tensor2D;
      const dx = backNorm(finalNorm(config, tensors, norm), dy, selected, stats, ofRun);
      dy.dispose();
      addGrads(grads, ofRun);
      return dx;
    }),
  );
  const zeros = tf.zeros<tf.Rank.R2>([packedRows, config.width]);
  const dx = scatterAddRows(zeros, dselected, rows);
  tf.dispose([zeros, dselected]);
  disposeOutput(saved);
  return { dx, grads };
}

interface Run {
  readonly norm: string;
  readonly count: number;
}

/** Neighbouring parts of one norm as one run; empty ones are left out. */
function runsOf(tensors: UnitTensors, parts: readonly OutputRows[]): Run[] {
  const runs: Run[] = [];
  for (const { kind, rows } of parts) {
    if (rows.length === 0) continue;
    const norm = normOf(tensors, kind);
    const last = runs.at(-1)?.norm === norm ? runs.pop() : undefined;
    runs.push({ norm, count: (last?.count ?? 0) + rows.length });
  }
  return runs;
}

/** The norm of its own that the model has for such tokens, or the one for all. */
function normOf(tensors: UnitTensors, kind: TokenKind): string {
  const names = { localCls: ["local_cls_norm", "cls_norm"], cls: ["cls_norm"], patch: [] }[kind];
  const own = names.find((name) => tensors[`backbone.${name}.weight`]);
  return `backbone.${own ?? "norm"}`;
}

function finalNorm(config: VitConfig, tensors: UnitTensors, name: string): NormLayer {
  return normLayer(tensors, name, config.normEps);
}

/** The rows of each run; takes x. */
function splitRows(x: tf.Tensor2D, runs: readonly Pick<Run, "count">[]): tf.Tensor2D[] {
  if (runs.length === 1) return [x];
  let start = 0;
  const pieces = runs.map(({ count }) => {
    start += count;
    return tf.slice(x, [start - count, 0], [count, -1]);
  });
  x.dispose();
  return pieces;
}

/** Undoes `splitRows`; takes the pieces. */
function joinRows(pieces: readonly tf.Tensor2D[]): tf.Tensor2D {
  if (pieces.length === 1) return pieces[0] as tf.Tensor2D;
  const joined = tf.concat([...pieces]);
  tf.dispose([...pieces]);
  return joined;
}
