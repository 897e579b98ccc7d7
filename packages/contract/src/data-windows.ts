/**
 * Which data a step uses when some was left out. The sample stream is cut into data steps, one global batch each: data step d is what
 * step d uses while nothing is left out. A window that is left out is never used again, by no step; the steps before it keep their data, those
 * after it move on. So the samples of a step are a function of (seed, windows, step), whoever computes it and however often.
 */

/** The data steps [from, to). */
export interface DataWindow {
  readonly from: number;
  readonly to: number;
}

/** The data step of `step`: the one with that number among those that are not left out. @param leftOut ascending, apart from each other */
export function dataStepOf(leftOut: readonly DataWindow[], step: number): number {
  let dataStep = step;
  for (const { from, to } of leftOut) {
    if (dataStep < from) break;
    dataStep += to - from;
  }
  return dataStep;
}

/** The windows once the data that steps [from, to) use now is left out too: ascending, apart from each other. */
export function leaveOut(leftOut: readonly DataWindow[], from: number, to: number): DataWindow[] {
  const added = { from: dataStepOf(leftOut, from), to: dataStepOf(leftOut, to - 1) + 1 };
  const all = [...leftOut, added].sort((a, b) => a.from - b.from);
  const merged: DataWindow[] = [];
  for (const window of all) {
    const last = merged.at(-1);
    if (last && window.from <= last.to) {
      merged[merged.length - 1] = { from: last.from, to: Math.max(last.to, window.to) };
    } else merged.push(window);
  }
  return merged;
}
