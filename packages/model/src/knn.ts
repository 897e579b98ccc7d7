/** Weighted k-NN classification on cosine similarity (DINO eval_knn.py). */
import { invariant } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { l2Normalize } from "./ops/l2-normalize.js";

export interface KnnArgs {
  /** [M,D] labelled features; need not be normalised. */
  readonly bank: Float32Array;
  /** [M] class of each, in [0, classes). */
  readonly bankLabels: ArrayLike<number>;
  /** [Q,D] */
  readonly queries: Float32Array;
  readonly queryLabels: ArrayLike<number>;
  /** D */
  readonly dimension: number;
  /** Neighbours; at most M count. DINO: 20. */
  readonly k: number;
  /** A neighbour votes with exp(similarity / temperature). DINO: 0.07. */
  readonly temperature: number;
  /** Queries scored at once: bounds memory to chunk x M floats. */
  readonly chunk?: number;
}

/** The fraction of queries whose class wins the vote. Ties go to the lower bank index and the lower class. */
export async function knn(args: KnnArgs): Promise<number> {
  const { dimension, queryLabels } = args;
  const total = queryLabels.length;
  const entries = args.bankLabels.length;
  invariant(
    args.bank.length === entries * dimension && args.queries.length === total * dimension,
    `k-NN features do not match their labels: ${args.bank.length} / ${entries}, ${args.queries.length} / ${total} at ${dimension} dimensions`,
  );
  const chunk = args.chunk ?? Math.max(1, Math.floor(2 ** 23 / Math.max(1, entries)));
  const bank = tf.tidy(() => tf.transpose(unitRows(args.bank, dimension)) as tf.Tensor2D);
  let correct = 0;
  try {
    for (let start = 0; start < total; start += chunk) {
      const end = Math.min(start + chunk, total);
      const rows = args.queries.subarray(start * dimension, end * dimension);
      const scores = tf.tidy(() => tf.matMul(unitRows(rows, dimension), bank));
      const similarities = (await scores.data()) as Float32Array;
      scores.dispose();
      for (let q = start; q < end; q++) {
        const ofQuery = similarities.subarray((q - start) * entries, (q - start + 1) * entries);
        if (vote(ofQuery, args) === queryLabels[q]) correct++;
      }
    }
  } finally {
    bank.dispose();
  }
  return total === 0 ? 0 : correct / total;
}

function unitRows(values: Float32Array, dimension: number): tf.Tensor2D {
  return l2Normalize(tf.tensor2d(values, [values.length / dimension, dimension]), 1e-12).y;
}

/** The class with the largest sum of weights among the k nearest. */
function vote(similarities: Float32Array, { bankLabels, k, temperature }: KnnArgs): number {
  const votes = new Map<number, number>();
  for (const neighbour of largest(similarities, k)) {
    const label = bankLabels[neighbour] as number;
    const weight = Math.exp((similarities[neighbour] as number) / temperature);
    votes.set(label, (votes.get(label) ?? 0) + weight);
  }
  let winner = -1;
  let most = Number.NEGATIVE_INFINITY;
  for (const [label, weight] of votes) {
    if (weight > most || (weight === most && label < winner)) [winner, most] = [label, weight];
  }
  return winner;
}

/** Indices of the k largest values, largest first. One pass: few values get past the smallest kept one. hot: */
function largest(values: Float32Array, k: number): number[] {
  const kept: number[] = [];
  let floor = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (kept.length === k && value <= floor) continue;
    let at = kept.length;
    while (at > 0 && (values[kept[at - 1] as number] as number) < value) at--;
    kept.splice(at, 0, i);
    if (kept.length > k) kept.pop();
    if (kept.length === k) floor = values[kept[k - 1] as number] as number;
  }
  return kept;
}
