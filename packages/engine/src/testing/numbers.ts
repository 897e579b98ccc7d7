/** What the engine's tests share: seeded values, finite differences in double precision, comparison. */

export type Values = Float64Array<ArrayBuffer>;

/** `count` reproducible values, roughly normal. Already rounded to float32, so that both sides see them. */
export function normals(count: number, seed: number): Values {
  let state = seed * 2654435761 + 1;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const value = () => uniform() + uniform() + uniform() + uniform() - 2;
  return Float64Array.from({ length: count }, () => Math.fround(1.7 * value()));
}

/**
 * The gradient of sum(dy * f(inputs)) by input `which`, by central differences in double precision: good
 * to about 1e-8 relative, far below the float32 noise it is compared with.
 */
export function gradientOf(
  f: (inputs: readonly Values[]) => Values,
  inputs: readonly Values[],
  dy: Values,
  which: number,
): Values {
  const h = 1e-4;
  const along = (values: Values) => values.reduce((sum, y, i) => sum + y * (dy[i] ?? 0), 0);
  const x = inputs[which] ?? new Float64Array();
  return x.map((_, i) => {
    const shifted = (by: number) =>
      along(f(inputs.with(which, x.with(i, (x[i] ?? 0) + by) as Values)));
    return (shifted(h) - shifted(-h)) / (2 * h);
  }) as Values;
}

/** Largest difference relative to the largest expected magnitude. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  let scale = 1e-30;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    worst = Math.max(worst, difference); // NaN stays NaN
    scale = Math.max(scale, Math.abs(expected[i] ?? 0));
  }
  return worst / scale;
}
