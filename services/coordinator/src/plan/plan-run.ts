/** What each worker executes and holds, and in which segments: arithmetic on the spec. */
import {
  invariant,
  type Layout,
  layoutOf,
  type Range,
  type RunSpec,
  ranksOf,
  shardOf,
  sizeOf,
  statePartsOf,
} from "@paddock/contract";

export interface WorkerPlan {
  /** Index in [0, workers). */
  readonly worker: number;
  /** Logical ranks this worker executes. */
  readonly ranks: Range;
  /** Persistent state of its shards, padding included, in bytes: about 16 * parameters / workers, and 4 per parameter of a frozen teacher. */
  readonly shardBytes: number;
}

export interface Plan {
  readonly workers: readonly WorkerPlan[];
  /** Step ranges that tile [startStep, steps), aligned to multiples of `segmentSteps`. */
  readonly segments: readonly Range[];
  readonly layout: Layout;
}

/**
 * The plan of one generation.
 * @param workers how many execute it, in [1, spec.logicalRanks]
 * @param startStep first step it executes
 */
export function planRun(
  spec: RunSpec,
  fleet: { readonly workers: number; readonly startStep: number },
): Plan {
  const layout = layoutOf(spec);
  const workers = Array.from({ length: fleet.workers }, (_, worker) => ({
    worker,
    ranks: ranksOf(spec.logicalRanks, worker, fleet.workers),
    shardBytes: shardBytes(spec, layout, worker, fleet.workers),
  }));
  return { workers, segments: segmentsFrom(spec, fleet.startStep), layout };
}

/** The segment that holds `step` in a generation that began at `startStep`: cut at multiples of `segmentSteps`. */
export function segmentAt(spec: RunSpec, startStep: number, step: number): Range {
  const size = spec.fleet.segmentSteps;
  invariant(
    startStep <= step && step < spec.steps,
    `step ${step} of [${startStep}, ${spec.steps})`,
  );
  const start = Math.floor(step / size) * size;
  return { start: Math.max(start, startStep), end: Math.min(start + size, spec.steps) };
}

function segmentsFrom(spec: RunSpec, startStep: number): Range[] {
  const segments: Range[] = [];
  for (let step = startStep; step < spec.steps; ) {
    const segment = segmentAt(spec, startStep, step);
    segments.push(segment);
    step = segment.end;
  }
  return segments;
}

function shardBytes(spec: RunSpec, layout: Layout, worker: number, workers: number): number {
  let elements = 0;
  for (const { units } of statePartsOf(spec, layout)) {
    for (const unit of units) elements += sizeOf(shardOf(unit.elements, worker, workers));
  }
  return elements * 4;
}
