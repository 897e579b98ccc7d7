/**
 * Comparisons with a golden file. Whatever the file records must be compared: a tensor of `outputs` or `grads` that no
 * comparison asked for counts as failed.
 */
import * as tf from "@tensorflow/tfjs-core";
import type { Golden } from "./file.js";

type Values = ArrayLike<number>;

/** Allowed absolute difference, given the largest magnitude of the expected tensor. The table in the golden files' README. */
export type Tolerance = (largest: number) => number;

/** Backbone outputs, position encoding, attention maps. */
export const asOutput: Tolerance = (largest) => 1e-4 * Math.max(1, largest);
/** Gradients of backbones and blocks. */
export const asGradient: Tolerance = (largest) => 2e-4 * largest + 1e-6;
/** Heads, softmax and Sinkhorn probabilities; rotary tables. */
export const asProbability: Tolerance = () => 2e-5;
/** Loss values: relative or absolute. */
export const asLoss: Tolerance = (largest) => 1e-5 * Math.max(1, largest);
/** Gradients of a whole step. */
export const asStepGradient: Tolerance = (largest) => 1e-4 * largest + 1e-6;
/** Gradient norms, three-step totals of the loss. */
export const asRelative: Tolerance = (largest) => 1e-4 * largest;
/** Parameters and teacher after a step, at stable elements. */
export const asParameter: Tolerance = () => 1e-5;
/** Norms of all parameters at the end of a trajectory. */
export const asFinalNorm: Tolerance = () => 5e-3;
/** Schedules and multipliers, in doubles. */
export const asDouble: Tolerance = () => 1e-12;
/** Masks, indices, counts. */
export const exactly: Tolerance = () => 0;

export interface Failure {
  readonly tensor: string;
  readonly reason: string;
}

export interface Outcome {
  /** Tensors compared. */
  readonly tensors: number;
  /** Largest difference over tolerance; at most 1 if all is well. */
  readonly worst: number;
  readonly failures: readonly Failure[];
}

export class Check {
  readonly #golden: Golden;
  readonly #compared = new Set<string>();
  readonly #failures: Failure[] = [];
  #comparisons = 0;
  #worst = 0;

  constructor(golden: Golden) {
    this.#golden = golden;
  }

  /** Compares with the recorded tensor of that name. `where` (1 = compare) limits it to some elements. */
  tensor(name: string, actual: Values | tf.Tensor, tolerance: Tolerance, where?: Values): void {
    this.#compared.add(name);
    this.close(name, actual, this.#golden.values(name), tolerance, where);
  }

  /** Compares two vectors; a tensor is disposed. */
  close(
    what: string,
    actual: Values | tf.Tensor,
    expected: Values,
    tolerance: Tolerance,
    where?: Values,
  ): void {
    this.#comparisons++;
    const values = actual instanceof tf.Tensor ? actual.dataSync() : actual;
    if (actual instanceof tf.Tensor) actual.dispose();
    if (values.length !== expected.length) {
      this.fail(what, `expected ${expected.length} elements, received ${values.length}`);
      return;
    }
    const { at, difference, largest } = worstOf(values, expected, where);
    const allowed = tolerance(largest);
    const ratio = difference === 0 ? 0 : difference / allowed;
    this.#worst = Math.max(this.#worst, Number.isNaN(ratio) ? Number.POSITIVE_INFINITY : ratio);
    if (difference <= allowed) return;
    this.fail(
      what,
      `element ${at}: expected ${expected[at]}, received ${values[at]}; difference ${difference} > ${allowed}`,
    );
  }

  /** Compares whatever JSON can hold. */
  equal(what: string, actual: unknown, expected: unknown): void {
    this.#comparisons++;
    const [ours, theirs] = [JSON.stringify(actual), JSON.stringify(expected)];
    if (ours !== theirs) this.fail(what, `expected ${theirs}, received ${ours}`);
  }

  /** A condition that must hold, e.g. of a statistic. */
  holds(what: string, condition: boolean, reason: string): void {
    this.#comparisons++;
    if (!condition) this.fail(what, reason);
  }

  fail(tensor: string, reason: string): void {
    this.#failures.push({ tensor, reason });
  }

  /** Marks recorded tensors as compared by other means, e.g. statistics of them. */
  covered(...names: readonly string[]): void {
    for (const name of names) this.#compared.add(name);
  }

  outcome(): Outcome {
    const results = this.#golden
      .names()
      .filter((name) => name.startsWith("outputs.") || name.startsWith("grads"));
    const forgotten = results.filter((name) => !this.#compared.has(name));
    const failures = [
      ...this.#failures,
      ...forgotten.map((tensor) => ({ tensor, reason: "recorded, but compared with nothing" })),
    ];
    return {
      tensors: this.#comparisons + forgotten.length,
      worst: forgotten.length > 0 ? Number.POSITIVE_INFINITY : this.#worst,
      failures,
    };
  }
}

function worstOf(
  actual: Values,
  expected: Values,
  where: Values | undefined,
): { at: number; difference: number; largest: number } {
  let largest = 0;
  let worst = { at: -1, difference: 0 };
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i] as number));
    if (where && !where[i]) continue;
    const difference = Math.abs((actual[i] as number) - (expected[i] as number));
    // NaN counts as worse than anything.
    if (!(difference <= worst.difference)) worst = { at: i, difference };
    if (Number.isNaN(difference)) break;
  }
  return { ...worst, largest };
}
