/**
 * Whether the loss has spiked: several losses in a row far above what the steps before them had. Median and median absolute deviation
 * do not move with a few outliers, so the window may contain the spike itself. Pure.
 */
import type { GuardsSpec } from "@paddock/contract";
import type { LossAt } from "./history.js";

type Settings = NonNullable<GuardsSpec["spike"]>;

export interface Spike {
  /** First step that was above. */
  readonly from: number;
  /** The step that made it a spike, its loss, and what that was compared with. */
  readonly step: number;
  readonly loss: number;
  readonly median: number;
  readonly limit: number;
}

/** Makes a deviation comparable with a standard deviation, for values that are normally distributed. */
const madFactor = 1.4826;
/** Of the median: losses that hardly vary are not judged by their last digits. */
const leastDeviation = 0.01;

/** The spike that the last loss completes: it is the `steps`-th in a row above. Null: none, or it was one already. */
export function spikeAt(settings: Settings, losses: readonly LossAt[]): Spike | null {
  const last = losses.length - 1;
  const first = last - settings.steps + 1;
  for (let index = first; index <= last; index++) {
    if (!isAbove(settings, losses, index, settings.factor)) return null;
  }
  if (isAbove(settings, losses, first - 1, settings.factor)) return null;
  const [from, now] = [losses[first], losses[last]];
  const level = levelAt(settings, losses, last);
  if (!from || !now || !level) return null;
  const limit = level.median + settings.factor * level.deviation;
  return { from: from.step, step: now.step, loss: now.loss, median: level.median, limit };
}

/** Whether the last loss is well below what would be a spike: half way. Then the next spike is a new one. */
export function isCalm(settings: Settings, losses: readonly LossAt[]): boolean {
  return losses.length > 0 && !isAbove(settings, losses, losses.length - 1, settings.factor / 2);
}

function isAbove(
  settings: Settings,
  losses: readonly LossAt[],
  index: number,
  factor: number,
): boolean {
  const level = levelAt(settings, losses, index);
  const now = losses[index];
  return level !== null && now !== undefined && now.loss > level.median + factor * level.deviation;
}

/** Median and deviation of the window before a loss; null while it is not full. */
function levelAt(
  { window }: Settings,
  losses: readonly LossAt[],
  index: number,
): { readonly median: number; readonly deviation: number } | null {
  if (index < window) return null;
  const values = losses.slice(index - window, index).map(({ loss }) => loss);
  const middle = median(values);
  const mad = median(values.map((value) => Math.abs(value - middle)));
  const deviation = Math.max(madFactor * mad, leastDeviation * Math.abs(middle));
  return { median: middle, deviation };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = sorted[half] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[half - 1] ?? 0) + upper) / 2;
}
