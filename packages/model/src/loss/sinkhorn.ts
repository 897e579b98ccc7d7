/**
 * Sinkhorn-Knopp over the rows of all logical ranks (dinov2 loss/dino_clstoken_loss.py, ibot_patch_loss.py).
 *
 * The official code rescales the matrix Q = exp(scores / temperature) in place. Here Q stays and only the scaling vectors
 * change: Q * u[prototype] * v[row] is what the official code holds. So an iteration is two matrix-vector products, and
 * its factors 1/K and 1/B, which u and v would cancel, never appear; nor does the number of rows.
 * Shapes: N rows of a rank (0 is allowed), K prototypes.
 */
import { invariant } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import {
  type SinkhornState,
  sinkhornColumns,
  sinkhornFinish,
  sinkhornRows,
  sinkhornStart,
} from "../ops/sinkhorn.js";

/** exp of it, times millions of rows, is well inside fp32. */
const largestExponent = 60;

/** What a prototype's mass counts at least, relative to the largest. */
const negligible = 1e-30;

/** Adds vectors over all logical ranks in a fixed order; one vector per local rank goes in. */
export type SumAcrossRanks = (
  key: string,
  perLocalRank: readonly Float32Array[],
) => Promise<Float32Array>;

/** Teacher scores of one loss: one entry per local rank, undefined for a rank without rows. */
export interface ScoresOfRanks {
  readonly scores: readonly (tf.Tensor2D | undefined)[];
  readonly prototypes: number;
  /** An upper bound of the scores' magnitude, the same on every worker: keeps exp in range. */
  readonly bound: number;
}

/**
 * Assignments [N,K] per loss and local rank; rows sum to 1. Takes ownership of the scores; the caller owns the result.
 * All losses share one call of `sum` per iteration.
 */
export async function sinkhorn(
  losses: readonly ScoresOfRanks[],
  options: { readonly temperature: number; readonly iterations: number },
  sum: SumAcrossRanks,
): Promise<(tf.Tensor2D | undefined)[][]> {
  const states = losses.map((loss) =>
    loss.scores.map((scores) => scores && start(scores, loss.bound, options.temperature)),
  );
  try {
    const columns = await balance(states, losses, options.iterations, sum);
    return states.map((ofRanks, loss) =>
      ofRanks.map((state) => state && finish(state, columns[loss] as Float32Array)),
    );
  } finally {
    for (const state of states.flat()) if (state) tf.dispose([state.q, state.v]);
  }
}

type States = readonly (readonly (SinkhornState | undefined)[])[];

/** Iterates; returns the last u of each loss. */
async function balance(
  states: States,
  losses: readonly ScoresOfRanks[],
  iterations: number,
  sum: SumAcrossRanks,
): Promise<Float32Array[]> {
  const ranks = losses[0]?.scores.length ?? 0;
  const widths = losses.map((loss) => loss.prototypes);
  let columns: Float32Array[] = [];
  for (let iteration = 0; iteration < iterations; iteration++) {
    const perRank: Float32Array[] = [];
    for (let rank = 0; rank < ranks; rank++) {
      perRank.push(await columnSumsOf(states, widths, rank));
    }
    columns = split(await sum(`sinkhorn.${iteration}`, perRank), widths).map(inverse);
    for (const [loss, ofRanks] of states.entries()) {
      for (const state of ofRanks) if (state) normalizeRows(state, columns[loss] as Float32Array);
    }
  }
  return columns;
}

/**
 * Divides each row by its largest entry, which v takes back: Q cannot overflow. v is then scaled by what keeps it in range;
 * the factor is 1 for scores as DINOv2 has them (magnitude 1, temperature 0.04), and cancels anyway.
 */
function start(scores: tf.Tensor2D, bound: number, temperature: number): SinkhornState {
  const shift = Math.max(0, bound - largestExponent * temperature);
  const state = sinkhornStart(scores, shift, temperature);
  scores.dispose();
  return state;
}

/** Sums over a rank's rows of Q v, all losses packed. */
async function columnSumsOf(
  states: States,
  widths: readonly number[],
  rank: number,
): Promise<Float32Array> {
  const packed = new Float32Array(widths.reduce((a, b) => a + b, 0));
  let offset = 0;
  for (const [loss, ofRanks] of states.entries()) {
    const state = ofRanks[rank];
    if (state) {
      const sums = sinkhornColumns(state);
      packed.set((await sums.data()) as Float32Array, offset);
      sums.dispose();
    }
    offset += widths[loss] as number;
  }
  return packed;
}

/** v = 1 / (Q u) */
function normalizeRows(state: SinkhornState, factors: Float32Array): void {
  const u = tf.tensor1d(factors);
  const v = sinkhornRows(state.q, u);
  tf.dispose([u, state.v]);
  state.v = v;
}

function finish(state: SinkhornState, factors: Float32Array): tf.Tensor2D {
  const u = tf.tensor1d(factors);
  const assigned = sinkhornFinish(state, u);
  tf.dispose([u, state.q, state.v]);
  return assigned;
}

/**
 * u = 1 / sums. A prototype whose mass underflowed counts as far below the others, not as nothing: no division by zero.
 * Something that is not a number stays so, and shows in the loss.
 */
function inverse(sums: Float32Array): Float32Array {
  const largest = sums.reduce((a, b) => Math.max(a, b), 0);
  const least = largest > 0 ? largest * negligible : 1;
  return sums.map((sum) => 1 / Math.max(sum, least));
}

function split(packed: Float32Array, widths: readonly number[]): Float32Array[] {
  let offset = 0;
  const parts = widths.map((width) => {
    offset += width;
    return packed.subarray(offset - width, offset);
  });
  invariant(
    offset === packed.length,
    `expected ${offset} Sinkhorn sums, received ${packed.length}`,
  );
  return parts;
}
