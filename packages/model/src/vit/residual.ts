/** One residual branch: y = x + gamma * inner(norm(x)), on all sequences or, with stochastic depth, on a subset of each group. */
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import type { Rotation } from "../ops/rope.js";
import { gatherRows, scatterAddRows } from "../ops/rows.js";
import { type ScaledAddOptions, scaledAdd, scaledAddBackward } from "../ops/scaled-add.js";
import {
  applyNorm,
  backNorm,
  type Grads,
  type NormLayer,
  type NormStats,
  statsOf,
} from "./layers.js";
import type { BranchRows } from "./stochastic-depth.js";

/** The sequences that a branch sees, and where their patches are in the image. */
export interface Packing {
  readonly groups: readonly SequenceGroup[];
  /** Absent without rotary positions. */
  readonly rotation?: Rotation | undefined;
}

/** What happens between norm and residual. */
export interface Inner<Saved> {
  /** r [S,D] from the normalised rows [S,D]; `saved` is for backward. The caller owns both. */
  forward(n: tf.Tensor2D, packing: Packing): { readonly r: tf.Tensor2D; readonly saved: Saved };
  /** dn [S,D]; the parameters' gradients go into `grads`. Leaves its arguments to the caller. */
  backward(
    dr: tf.Tensor2D,
    n: tf.Tensor2D,
    saved: Saved,
    packing: Packing,
    grads: Grads,
  ): tf.Tensor2D;
}

export interface ResidualLayer<Saved> {
  readonly norm: NormLayer;
  readonly inner: Inner<Saved>;
  /** LayerScale, if the model has it. */
  readonly gamma: { readonly name: string; readonly value: tf.Tensor1D } | undefined;
}

/**
 * What backward needs, besides the branch's input: the results of matrix products and attention. What one pass over memory
 * gives again (the norm's output, GELU) is computed again: a third less to keep for about 2 % of a step's time.
 */
export interface ResidualSaved<Saved> {
  readonly subset: BranchRows | undefined;
  /** The input's rows that take part; absent if all do. */
  readonly selected: tf.Tensor2D | undefined;
  readonly stats: NormStats;
  readonly inner: Saved;
  /** [S,D] the residual before LayerScale. */
  readonly r: tf.Tensor2D;
}

/** Leaves x to the caller and takes ownership of `subset`. */
export function residual<Saved>(
  layer: ResidualLayer<Saved>,
  x: tf.Tensor2D,
  packing: Packing,
  subset: BranchRows | undefined,
): { readonly y: tf.Tensor2D; readonly saved: ResidualSaved<Saved> } {
  const selected = subset?.rows && gatherRows(x, subset.rows);
  const { y: n, ...stats } = applyNorm(layer.norm, selected ?? x);
  const { r, saved: inner } = layer.inner.forward(n, packingOf(subset, packing));
  n.dispose();
  const y = scaledAdd(x, r, { gamma: layer.gamma?.value, ...placeOf(subset) });
  return { y, saved: { subset, selected, stats, inner, r } };
}

/** dx [T,D] for dy [T,D]; leaves its arguments to the caller. The parameters' gradients go into `grads`. */
export function residualBackward<Saved>(
  layer: ResidualLayer<Saved>,
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  packing: Packing,
  saved: ResidualSaved<Saved>,
  grads: Grads,
): tf.Tensor2D {
  const { subset, selected, stats, inner, r } = saved;
  const { gamma, norm } = layer;
  const scaled = scaledAddBackward(dy, r, { gamma: gamma?.value, ...placeOf(subset) });
  if (gamma && scaled.dgamma) grads[gamma.name] = scaled.dgamma;
  const { y: n, ...again } = applyNorm(norm, selected ?? x);
  const dn = layer.inner.backward(scaled.dr, n, inner, packingOf(subset, packing), grads);
  tf.dispose([scaled.dr, n, ...statsOf(again)]);
  const dselected = backNorm(norm, dn, selected ?? x, stats, grads);
  dn.dispose();
  const dx = subset?.rows ? scatterAddRows(dy, dselected, subset.rows) : tf.add(dy, dselected);
  dselected.dispose();
  return dx as tf.Tensor2D;
}

function packingOf(subset: BranchRows | undefined, packing: Packing): Packing {
  return subset ? { ...packing, groups: subset.groups } : packing;
}

function placeOf(subset: BranchRows | undefined): Pick<ScaledAddOptions, "rows" | "rowScale"> {
  return subset ? { rows: subset.rows, rowScale: subset.rowScale } : {};
}
