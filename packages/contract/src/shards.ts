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

/** The common part of two ranges, or undefined. Resharding W to W' is nothing else. */
export function intersect(a: Range, b: Range): Range | undefined {
  const start = Math.max(a.start, b.start);
  const end = Math.min(a.end, b.end);
  return start < end ? { start, end } : undefined;
}

export function sizeOf(range: Range): number {
  return range.end - range.start;
}
