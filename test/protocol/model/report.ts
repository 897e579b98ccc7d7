/** What a worker would say about a step: all the same numbers, in the shape that the layout asks for. */
import {
  chunkElements,
  type Layout,
  nodesOf,
  type RunSpec,
  ranksOf,
  shardOf,
  stepParts,
} from "@paddock/contract";
import type { Prepared } from "@paddock/proto";

export type Report = Omit<Prepared, "generation" | "step">;

const known = new WeakMap<RunSpec, Map<string, Report>>();

/** One object per place: worlds share it. */
export function reportOf(spec: RunSpec, layout: Layout, worker: number, workers: number): Report {
  const ofSpec = known.get(spec) ?? new Map<string, Report>();
  known.set(spec, ofSpec);
  const key = `${worker}/${workers}`;
  const report = ofSpec.get(key) ?? makeReport(spec, layout, worker, workers);
  ofSpec.set(key, report);
  return report;
}

function makeReport(spec: RunSpec, layout: Layout, worker: number, workers: number): Report {
  const { start, end } = ranksOf(spec.logicalRanks, worker, workers);
  return {
    finite: true,
    losses: Array.from({ length: end - start }, (_, i) => ({
      rank: start + i,
      total: 2,
      dinoLocal: 1,
      dinoGlobal: 1,
      koleo: 0,
      ibot: 0,
      gram: 0,
    })),
    monitors: [],
    normRoots: layout.normGroups.flatMap((group) => {
      const unit = layout.units.find(({ name }) => name === group.unit);
      const shard = shardOf(unit?.elements ?? 0, worker, workers);
      const first = Math.ceil(shard.start / chunkElements);
      const last = Math.ceil(shard.end / chunkElements);
      return nodesOf(group, first, new Float64Array(last - first).fill(1));
    }),
    seconds: Object.fromEntries(stepParts.map((part) => [part, 0])),
    exchangeBytes: 0,
    peakGatheredBytes: 0,
    stateBytes: 0,
    images: 0,
    firstBadTensor: "",
    eventLoopP99Ms: 0,
    badImages: 0,
    deviceAllocatedBytes: 0,
    devicePeakBytes: 0,
    deviceReservedBytes: 0,
  };
}
