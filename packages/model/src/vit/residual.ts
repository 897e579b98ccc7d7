/** One residual branch: y = x + gamma * inner(norm(x)), on all sequences or, with stochastic depth, on a subset of each group. */
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import { gatherRows, scatterAddRows } from "../ops/rows.js";
import { scaledAdd, scaledAddBackward } from "../ops/scaled-add.js";
import { applyNorm, backNorm, type Grads, type NormLayer, type NormStats } from "./layers.js";
import type { RowSubset } from "./stochastic-depth.js";

/** What happens between norm and residual. */
export interface Inner<Saved> {
  /** r [S,D] from the normalised rows [S,D]; `saved` is for backward. The caller owns both. */
  forward(
    n: tf.Tensor2D,
    groups: readonly SequenceGroup[],
  ): { readonly r: tf.Tensor2D; readonly saved: Saved };
  /** dn [S,D]; the parameters' gradients go into `grads`. Leaves its arguments to the caller. */
  backward(
    dr: tf.Tensor2D,
    n: tf.Tensor2D,
    saved: Saved,
    groups: readonly SequenceGroup[],
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
  readonly subset: RowSubset | undefined;
  /** The input's rows of the subset; absent if all rows take part. */
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
  groups: readonly SequenceGroup[],
  subset: RowSubset | undefined,
): { readonly y: tf.Tensor2D; readonly saved: ResidualSaved<Saved> } {
  const selected = subset && gatherRows(x, subset.rows);
  const { y: n, ...stats } = applyNorm(layer.norm, selected ?? x);
  const { r, saved: inner } = layer.inner.forward(n, subset?.groups ?? groups);
  n.dispose();
  const y = scaledAdd(x, r, { gamma: layer.gamma?.value, ...placeOf(subset) });
  return { y, saved: { subset, selected, stats, inner, r } };
}

/** dx [T,D] for dy [T,D]; leaves its arguments to the caller. The parameters' gradients go into `grads`. */
export function residualBackward<Saved>(
  layer: ResidualLayer<Saved>,
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  groups: readonly SequenceGroup[],
  saved: ResidualSaved<Saved>,
  grads: Grads,
): tf.Tensor2D {
  const { subset, selected, stats, inner, r } = saved;
  const { gamma, norm } = layer;
  const scaled = scaledAddBackward(dy, r, { gamma: gamma?.value, ...placeOf(subset) });
  if (gamma && scaled.dgamma) grads[gamma.name] = scaled.dgamma;
  const { y: n, ...again } = applyNorm(norm, selected ?? x);
  const dn = layer.inner.backward(scaled.dr, n, inner, subset?.groups ?? groups, grads);
  tf.dispose([scaled.dr, n, again.mean, again.rstd]);
  const dselected = backNorm(norm, dn, selected ?? x, stats, grads);
  dn.dispose();
  const dx = subset ? scatterAddRows(dy, dselected, subset.rows) : tf.add(dy, dselected);
  dselected.dispose();
  return dx as tf.Tensor2D;
}

function placeOf(subset: RowSubset | undefined): { rows?: tf.Tensor1D; rowScale?: tf.Tensor1D } {
  return subset ? { rows: subset.rows, rowScale: subset.rowScale } : {};
}
