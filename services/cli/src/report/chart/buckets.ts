/** Fewer points for long series: what a chart of a few hundred pixels can show. */

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** Neighbouring points as one: their mean, and their range. */
export interface Bucket extends Point {
  readonly low: number;
  readonly high: number;
}

/** At most `limit` buckets of equally many neighbouring points (the last may have fewer). Points with a non-finite y are left out. */
export function bucketed(points: readonly Point[], limit: number): Bucket[] {
  const finite = points.filter(({ y }) => Number.isFinite(y));
  const size = Math.max(1, Math.ceil(finite.length / limit));
  const buckets: Bucket[] = [];
  for (let start = 0; start < finite.length; start += size) {
    const part = finite.slice(start, start + size);
    const ys = part.map(({ y }) => y);
    buckets.push({
      x: mean(part.map(({ x }) => x)),
      y: mean(ys),
      low: Math.min(...ys),
      high: Math.max(...ys),
    });
  }
  return buckets;
}

/** NaN for no values. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** NaN for no values. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const low = sorted[Math.floor(middle)] ?? Number.NaN;
  const high = sorted[Math.ceil(middle)] ?? Number.NaN;
  return (low + high) / 2;
}
