/** Comparisons at the tolerances of the golden files' README. */
import type * as tf from "@tensorflow/tfjs-core";

type Values = ArrayLike<number>;

/** Allowed absolute difference, given the largest magnitude of the expected tensor. */
export type Tolerance = (largest: number) => number;

/** Backbone outputs, position encoding, attention maps. */
export const asOutput: Tolerance = (largest) => 1e-4 * Math.max(1, largest);
/** Gradients of backbones and blocks. */
export const asGradient: Tolerance = (largest) => 2e-4 * largest + 1e-6;
/** Heads, softmax and Sinkhorn probabilities. */
export const asProbability: Tolerance = () => 2e-5;
/** Loss values: relative or absolute. */
export const asLoss: Tolerance = (largest) => 1e-5 * Math.max(1, largest);
/** Gradients of a whole step. */
export const asStepGradient: Tolerance = (largest) => 1e-4 * largest + 1e-6;
/** Gradient norms, three-step totals of the loss. */
export const asRelative: Tolerance = (largest) => 1e-4 * largest;
/** Parameters and teacher after a step, at stable elements. */
export const asParameter: Tolerance = () => 1e-5;

/** Fails with the worst element if any differs by more than the tolerance. Stable elements only, if `where` is given. */
export function expectClose(
  what: string,
  actual: Values,
  expected: Values,
  tolerance: Tolerance,
  where?: Uint8Array,
): void {
  if (actual.length !== expected.length) {
    throw new RangeError(
      `${what}: expected ${expected.length} elements, received ${actual.length}`,
    );
  }
  let largest = 0;
  for (let i = 0; i < expected.length; i++) largest = Math.max(largest, Math.abs(expected[i] ?? 0));
  let worst = { at: -1, difference: 0 };
  for (let i = 0; i < expected.length; i++) {
    if (where && !where[i]) continue;
    const difference = Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    if (!(difference <= worst.difference)) worst = { at: i, difference };
  }
  const { at, difference } = worst;
  const allowed = tolerance(largest);
  if (difference > allowed || Number.isNaN(difference)) {
    throw new RangeError(
      `${what}[${at}]: expected ${expected[at]}, received ${actual[at]}; ${difference} > ${allowed}`,
    );
  }
}

/** `expectClose` on a tensor, which it disposes. */
export function expectTensor(
  what: string,
  actual: tf.Tensor,
  expected: Values,
  tolerance: Tolerance,
): void {
  expectClose(what, actual.dataSync(), expected, tolerance);
  actual.dispose();
}
