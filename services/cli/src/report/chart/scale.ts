/** From numbers to positions, and to the round numbers that label an axis. */

export interface Scale {
  readonly low: number;
  readonly high: number;
  /** Round values inside [low, high], ascending, evenly spaced. */
  readonly ticks: readonly number[];
  /** Position of a value, in pixels. */
  at(value: number): number;
}

export interface ScaleOptions {
  /** Data range. Widened when empty. */
  readonly low: number;
  readonly high: number;
  /** Pixels of `low` and `high`. */
  readonly from: number;
  readonly to: number;
  /** About how many ticks. */
  readonly count: number;
  /** Whether the range grows to whole ticks at both ends. */
  readonly round: boolean;
  /** Smallest distance of ticks: 1 for counts. */
  readonly minStep?: number;
}

export function linearScale({
  low,
  high,
  from,
  to,
  count,
  round,
  minStep = 0,
}: ScaleOptions): Scale {
  const [a, b] = widened(low, high);
  const step = Math.max(minStep, niceStep((b - a) / Math.max(1, count)));
  const bottom = round ? Math.floor(a / step + 1e-9) * step : a;
  const top = round ? Math.ceil(b / step - 1e-9) * step : b;
  const first = Math.ceil(bottom / step - 1e-9);
  const last = Math.floor(top / step + 1e-9);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  return {
    low: bottom,
    high: top,
    ticks,
    at: (value) => from + ((value - bottom) / (top - bottom)) * (to - from),
  };
}

/** A range that is wide enough to be divided: rounding must not merge its ticks. */
function widened(low: number, high: number): [number, number] {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (high - low > size * 1e-6 && size > 1e-100) return [low, high];
  const around = size > 1e-100 ? size / 2 : 0.5;
  return [low - around, high + around];
}

/** The smallest of 1, 2, 5 times a power of ten that is at least `step`. */
function niceStep(step: number): number {
  const power = 10 ** Math.floor(Math.log10(step));
  const factor = [1, 2, 5].find((f) => f * power >= step * (1 - 1e-9)) ?? 10;
  return factor * power;
}

/** A tick's label: as few digits as tell neighbours apart. */
export function tickLabel(value: number, step: number): string {
  const size = Math.max(Math.abs(value), step);
  if (value === 0) return "0";
  if (size >= 1e6) return `${trimmed(value / 1e6, step / 1e6)}M`;
  if (size >= 1e4) return `${trimmed(value / 1e3, step / 1e3)}k`;
  if (step < 1e-3) return Number(value.toPrecision(3)).toExponential();
  return trimmed(value, step);
}

function trimmed(value: number, step: number): string {
  const digits = Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  return value.toFixed(digits);
}
