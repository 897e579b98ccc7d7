/** Which worker owns which part of a unit's flat vector, and which logical ranks it executes: integer arithmetic only. */
import { invariant } from "./errors.js";

/** A half-open range of elements (or ranks) [start, end). */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/**
 * Shard boundaries are multiples of this many elements, so that the partial sums of the gradient norm (one per chunk) do
 * not depend on the number of workers. 256 elements = 1 KiB of fp32: at most that much imbalance per unit.
 */
export const chunkElements = 256;

/** Chunks in a vector of `elements`. The last one may be partly filled. */
export function chunksIn(elements: number): number {
  return Math.ceil(elements / chunkElements);
}

/** The part of a unit of `elements` fp32 values that `worker` of `workers` owns. Shards tile [0, elements) in order. */
export function shardOf(elements: number, worker: number, workers: number): Range {
  invariant(0 <= worker && worker < workers, `worker ${worker} of ${workers}`);
  const chunks = chunksIn(elements);
  const boundary = (w: number): number =>
    w === workers
      ? elements
      : Math.min(elements, Math.floor((chunks * w) / workers) * chunkElements);
  return { start: boundary(worker), end: boundary(worker + 1) };
}

/** The logical ranks [start, end) that `worker` of `workers` executes. Contiguous, sizes differ by at most one. */
export function ranksOf(logicalRanks: number, worker: number, workers: number): Range {
  invariant(
    1 <= workers && workers <= logicalRanks,
    `${workers} workers for ${logicalRanks} logical ranks`,
  );
  return {
    start: Math.floor((logicalRanks * worker) / workers),
    end: Math.floor((logicalRanks * (worker + 1)) / workers),
  };
}

/** How logical ranks are dealt: worker w executes [cuts[w], cuts[w + 1]), at least one of them. */
export type RankCuts = readonly number[];

/** As equal as whole ranks allow. */
export function evenCuts(logicalRanks: number, workers: number): RankCuts {
  const starts = Array.from({ length: workers }, (_, w) => ranksOf(logicalRanks, w, workers).start);
  return [...starts, logicalRanks];
}

/**
 * The deal with which a step ends soonest: no other makes the slowest worker's ranks / speed smaller.
 * @param speeds ranks per second of each worker, positive
 */
export function cutsBySpeed(logicalRanks: number, speeds: readonly number[]): RankCuts {
  invariant(speeds.length <= logicalRanks, `${speeds.length} workers for ${logicalRanks} ranks`);
  const counts = speeds.map(() => 1);
  for (let dealt = speeds.length; dealt < logicalRanks; dealt++) {
    const seconds = speeds.map((speed, w) => ((counts[w] as number) + 1) / speed);
    const next = seconds.indexOf(Math.min(...seconds));
    counts[next] = (counts[next] as number) + 1;
  }
  const cuts = [0];
  for (const count of counts) cuts.push((cuts.at(-1) as number) + count);
  return cuts;
}

export function ranksOfCut(cuts: RankCuts, worker: number): Range {
  return { start: cuts[worker] as number, end: cuts[worker + 1] as number };
}

/** The common part of two ranges, or undefined. Resharding W to W' is nothing else. */
export function intersect(a: Range, b: Range): Range | undefined {
  const start = Math.max(a.start, b.start);
  const end = Math.min(a.end, b.end);
  return start < end ? { start, end } : undefined;
}

export function sizeOf(range: Range): number {
  return range.end - range.start;
}
