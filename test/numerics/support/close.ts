/** Comparison of two vectors, by an exception. */
type Values = ArrayLike<number>;

/** Allowed absolute difference, given the largest magnitude of the expected vector. */
export type Tolerance = (largest: number) => number;

/** Fails with the worst element if any differs by more than the tolerance. */
export function expectClose(
  what: string,
  actual: Values,
  expected: Values,
  tolerance: Tolerance,
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
