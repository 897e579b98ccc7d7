/**
 * Where in a step a value that is not finite came up first: in one rank's part of a sum over ranks (Sinkhorn, centres, KoLeo), in its loss, or in
 * its gradient. After that it is everywhere: one bad teacher score makes every rank's targets bad. So everything is looked at where it is made:
 * sums over ranks are short, losses are read anyway, and of each rank's gradient of a unit one sum is kept, all of which are read at once at the end.
 */
import type { Layout } from "@paddock/contract";
import type { RankLosses } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { backwardOrder } from "./buckets.js";

/** Something that is not finite. Of all that all workers saw, what has the smallest order, then rank, came first. */
export interface Seen {
  /** Place in the step's order of work, the same on all workers. */
  readonly order: number;
  /** "sum <key>", "loss <part>", a unit (one rank's gradient of it), or a parameter (its reduced gradient). */
  readonly tensor: string;
  /** Logical rank; -1: what all ranks make together. */
  readonly rank: number;
}

/** Sums over ranks count from 0: no step makes so many. */
const lossOrder = 1_000_000;
const gradientOrder = 2_000_000;

interface Probe {
  readonly unit: string;
  readonly rank: number;
  /** Of all values of the rank's gradient. */
  readonly sum: tf.Scalar;
}

export class OffenderWatch {
  readonly #ranks: readonly number[];
  /** Place of each unit in backward. */
  readonly #places: ReadonlyMap<string, number>;
  #sums = 0;
  #badSum: Seen | undefined;
  #probes: Probe[] = [];

  /** @param ranks the local ranks, ascending */
  constructor(layout: Layout, ranks: readonly number[]) {
    this.#ranks = ranks;
    this.#places = new Map(backwardOrder(layout).map((unit, index) => [unit, index]));
  }

  /** Forgets the step. */
  reset(): void {
    this.#sums = 0;
    this.#badSum = undefined;
    for (const { sum } of this.#probes) sum.dispose();
    this.#probes = [];
  }

  /** These vectors of the local ranks went into this sum over all ranks. */
  sum(key: string, perLocalRank: readonly Float32Array[], sum: Float32Array): void {
    const order = this.#sums++;
    if (this.#badSum || isAllFinite(sum)) return;
    // -1: it came from another worker, which says so with the same order and its rank.
    const index = perLocalRank.findIndex((values) => !isAllFinite(values));
    this.#badSum = { order, tensor: `sum ${key}`, rank: this.#ranks[index] ?? -1 };
  }

  /** A rank's flat gradient of a unit is there; it stays the caller's. */
  gradient(unit: string, rank: number, flat: tf.Tensor1D): void {
    this.#probes.push({ unit, rank, sum: tf.sum(flat) });
  }

  /** Place in the order of work of a unit's gradient. */
  placeOf(unit: string): number {
    return gradientOrder + (this.#places.get(unit) ?? 0);
  }

  /** What was seen first of each kind, once backward is done. Empty: nothing. */
  async seen(losses: readonly RankLosses[]): Promise<Seen[]> {
    const all = [this.#badSum, badLoss(losses), await this.#badGradient()];
    return all.filter((one) => one !== undefined);
  }

  async #badGradient(): Promise<Seen | undefined> {
    const probes = this.#probes;
    if (probes.length === 0) return undefined;
    const stacked = tf.stack(probes.map(({ sum }) => sum));
    for (const { sum } of probes) sum.dispose();
    this.#probes = [];
    const sums = await stacked.data();
    stacked.dispose();
    let first: Seen | undefined;
    probes.forEach(({ unit, rank }, index) => {
      const order = this.placeOf(unit);
      // Emitted unit by unit in backward's order, ranks ascending: the first one is the earliest.
      if (!Number.isFinite(sums[index])) first ??= { order, tensor: unit, rank };
    });
    return first;
  }
}

function badLoss(losses: readonly RankLosses[]): Seen | undefined {
  for (const { rank, total, ...parts } of losses) {
    const bad = Object.entries({ ...parts, total }).find(([, value]) => !Number.isFinite(value));
    if (bad) return { order: lossOrder, tensor: `loss ${bad[0]}`, rank };
  }
  return undefined;
}

// hot:
function isAllFinite(values: Float32Array): boolean {
  // 0 times a value is 0 unless it is infinite or no number; then it is no number, and stays so.
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i] as number) * 0;
  return sum === 0;
}
