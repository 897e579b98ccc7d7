/** What a run needs of Redis' memory. */

/** A smaller `maxInFlightBytes` counts as this. */
export const leastInFlightBytes = 2 ** 20;

/**
 * Most bytes by which a run makes Redis' `used_memory` grow, whatever happens to its workers:
 * - published student and teacher of two steps (the third is written when the first is gone), `dtypeBytes` each value,
 *   and each worker's unread payloads; a quarter more, because an allocator rounds up;
 * - per worker 8 MiB of connection buffers (two pieces on their way out, two on their way in, and what they round up to)
 *   and 1 MiB for its queue: the last finished tickets and events;
 * - 8 MiB for BullMQ's scripts and the tables of keys.
 * A generation deletes what the one before left when it begins, so generations do not add up.
 */
export function redisMemoryBound(o: {
  /** Elements of the layout. */
  readonly parameters: number;
  /** Elements of a frozen teacher. */
  readonly frozen?: number;
  readonly workers: number;
  readonly dtypeBytes: number;
  readonly maxInFlightBytes: number;
}): number {
  const published = 2 * (2 * o.parameters + (o.frozen ?? 0)) * o.dtypeBytes;
  const inFlight = o.workers * Math.max(o.maxInFlightBytes, leastInFlightBytes);
  return 1.25 * (published + inFlight) + o.workers * 9 * 2 ** 20 + 8 * 2 ** 20;
}
