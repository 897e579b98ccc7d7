/** Numbers as people read them. */

/** "58 s", "3 min 05 s", "2 h 10 min"; "unknown" for a negative or non-finite number of seconds. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "unknown";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${pad(whole % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
}

/** "12,345" */
export function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** A rate with three digits that matter: "1,234", "57.3", "0.85". */
export function rate(value: number): string {
  if (value >= 100) return count(value);
  return value.toFixed(value >= 10 ? 1 : 2);
}

/** "71.4 %" of a fraction in [0, 1]. */
export function percent(fraction: number): string {
  return `${(fraction * 100).toFixed(1)} %`;
}

/** "512 B", "1.5 KiB", "300.0 MiB", "2.4 GiB". */
export function bytes(value: number): string {
  const power = value < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(value) / 10));
  const unit = ["B", "KiB", "MiB", "GiB", "TiB"][power];
  return `${(value / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${unit}`;
}

/** "+5.2 points" between two fractions. */
export function points(from: number, to: number): string {
  const difference = (to - from) * 100;
  return `${difference < 0 ? "" : "+"}${difference.toFixed(1)} points`;
}

/** A loss: four decimals. */
export function loss(value: number): string {
  return value.toFixed(4);
}

/** A small positive number in three significant digits: "1.50e-3". */
export function small(value: number): string {
  return value === 0 ? "0" : value.toExponential(2);
}

function pad(value: number): string {
  return String(value).padStart(2, "0");
}
