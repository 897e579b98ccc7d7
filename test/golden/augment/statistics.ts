/**
 * Compares samples. Everything is allowed four standard errors of both samples together; in a family of many comparisons (bins, cells) chance alone
 * would exceed that here and there, so one in a hundred may, up to where the whole family is as unlikely as one comparison beyond four.
 */
import type { Check } from "../check.js";

type Values = ArrayLike<number>;

export interface Moments {
  readonly mean: number;
  readonly std: number;
  /** Standard errors of the two. */
  readonly meanError: number;
  readonly stdError: number;
}

export function momentsOf(values: Values): Moments {
  const n = values.length;
  let sum = 0;
  for (let i = 0; i < n; i++) sum += values[i] as number;
  const mean = sum / n;
  let [second, fourth] = [0, 0];
  for (let i = 0; i < n; i++) {
    const square = ((values[i] as number) - mean) ** 2;
    second += square / n;
    fourth += (square * square) / n;
  }
  const std = Math.sqrt(second);
  const stdError = std === 0 ? 0 : Math.sqrt((fourth - second ** 2) / n) / (2 * std);
  return { mean, std, meanError: std / Math.sqrt(n), stdError };
}

/** Recorded numbers are rounded to four digits at most. */
const digits = 5e-5;

/** Our moments against a recorded mean, and deviation if there is one, of `n` draws from the same distribution. */
export function sameMoments(
  check: Check,
  what: string,
  ours: Moments,
  oursCount: number,
  theirs: { readonly mean: number; readonly std?: number; readonly n: number },
): void {
  // The errors of their sample, if it comes from our distribution.
  const both = (error: number): number => 4 * error * Math.sqrt(1 + oursCount / theirs.n) + digits;
  check.close(`${what} mean`, [ours.mean], [theirs.mean], () => both(ours.meanError));
  if (theirs.std === undefined) return;
  check.close(`${what} deviation`, [ours.std], [theirs.std], () => both(ours.stdError));
}

/** How often something happened. */
export interface Share {
  readonly share: number;
  readonly n: number;
}

export function shareOf<T>(values: readonly T[], claim: (value: T) => boolean): Share {
  return { share: values.filter(claim).length / values.length, n: values.length };
}

function errorOf(a: Share, b: Share): number {
  const pooled = (a.share * a.n + b.share * b.n) / (a.n + b.n);
  return Math.sqrt(pooled * (1 - pooled) * (1 / a.n + 1 / b.n));
}

export function sameShare(check: Check, what: string, ours: Share, theirs: Share): void {
  check.close(what, [ours.share], [theirs.share], () => 4 * errorOf(ours, theirs) + digits);
}

/** Many shares at once, e.g. of places. */
export function sameShares(
  check: Check,
  what: string,
  ours: readonly Share[],
  theirs: readonly Share[],
): void {
  const scores = ours.map((share, i) => {
    const other = theirs[i] as Share;
    const difference = Math.abs(share.share - other.share);
    return difference <= digits ? 0 : difference / errorOf(share, other);
  });
  const beyond = scores.filter((score) => !(score <= 4)).length;
  const allowed = Math.max(1, Math.floor(scores.length / 100));
  check.holds(
    what,
    ours.length === theirs.length && beyond <= allowed,
    `${beyond} of ${scores.length} shares differ by more than 4 standard errors, allowed ${allowed}`,
  );
  const limit = familyLimit(scores.length);
  check.close(`${what} (largest of ${scores.length})`, [Math.max(...scores)], [0], () => limit);
}

/** Two histograms, bin by bin; neighbouring bins in which fewer than 20 draws of theirs are expected are joined. */
export function sameHistogram(
  check: Check,
  what: string,
  ours: { readonly counts: Values; readonly n: number },
  theirs: { readonly counts: Values; readonly n: number },
): void {
  const bins: [Share, Share][] = [];
  let [mine, other] = [0, 0];
  for (let i = 0; i < theirs.counts.length; i++) {
    mine += ours.counts[i] as number;
    other += theirs.counts[i] as number;
    const expected = ((mine + other) / (ours.n + theirs.n)) * theirs.n;
    if (expected < 20 && i < theirs.counts.length - 1) continue;
    bins.push([
      { share: mine / ours.n, n: ours.n },
      { share: other / theirs.n, n: theirs.n },
    ]);
    [mine, other] = [0, 0];
  }
  check.equal(`${what} bins`, ours.counts.length, theirs.counts.length);
  sameShares(
    check,
    what,
    bins.map(([a]) => a),
    bins.map(([, b]) => b),
  );
}

/** numpy.histogram: equal bins, the last one closed; values outside are left out. */
export function histogramOf(
  values: readonly number[],
  bins: number,
  [low, high]: readonly [number, number],
): { counts: number[]; n: number } {
  const counts = new Array<number>(bins).fill(0);
  for (const value of values) {
    if (value < low || value > high) continue;
    const bin = Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins));
    counts[bin] = (counts[bin] as number) + 1;
  }
  return { counts, n: values.length };
}

/** Standard errors that the largest of `count` comparisons exceeds as rarely as a single one exceeds four. */
function familyLimit(count: number): number {
  // Tail of the normal distribution, good to a percent beyond three deviations.
  const tail = (z: number): number =>
    (Math.exp((-z * z) / 2) / (z * Math.sqrt(2 * Math.PI))) * (1 - 1 / z ** 2 + 3 / z ** 4);
  let [low, high] = [4, 10];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (tail(middle) > tail(4) / count) low = middle;
    else high = middle;
  }
  return high;
}
