/** Takes this worker's segment jobs from its BullMQ queue and holds each until its steps are done. */

import { PaddockError, type SegmentJob } from "@paddock/contract";
import { redisTarget } from "@paddock/service-kit";
import { failpoint } from "@paddock/service-kit/failpoints";
import { UnrecoverableError, Worker } from "bullmq";
import { Redis } from "ioredis";

export interface SegmentConsumer {
  /** The steps [start, end) are done: their job is complete. */
  done(start: number, end: number): void;
  /** Takes no further job and fails those that are open: a new generation brings a new queue. */
  close(): Promise<void>;
}

interface OpenJob {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** @param onSegment called for every job that comes, also for one that comes again */
export function consumeSegments(options: {
  readonly redisUrl: string;
  readonly queue: string;
  readonly onSegment: (job: SegmentJob) => void;
}): SegmentConsumer {
  const { url, tls } = redisTarget(options.redisUrl);
  const connection = new Redis(url, { ...tls, maxRetriesPerRequest: null });
  // Its loss also shows in the exchange and in the lease, which decide what follows.
  connection.on("error", () => undefined);
  const open = new Map<string, OpenJob>();
  const worker = new Worker<SegmentJob>(
    options.queue,
    async ({ data }) => {
      await failpoint("worker.segment.taken");
      await new Promise<void>((resolve, reject) => {
        open.set(nameOf(data.start, data.end), { resolve, reject });
        options.onSegment(data);
      });
    },
    {
      connection,
      // A job ends with its last step, the next one may already be there.
      concurrency: 2,
      drainDelay: 1,
      // Only a backstop: leases are renewed by progress on the session stream. Short, because a connection cut at the wrong
      // moment leaves a job active that nobody runs; taking it again is harmless, the session knows what it has done.
      lockDuration: 10_000,
      stalledInterval: 5_000,
      maxStalledCount: 100,
    },
  );
  worker.on("error", () => undefined);
  return {
    done(start, end) {
      open.get(nameOf(start, end))?.resolve();
      open.delete(nameOf(start, end));
    },
    async close() {
      const over = new PaddockError("stale-generation", "the generation of this job is over");
      for (const { reject } of open.values()) reject(new UnrecoverableError(over.message));
      open.clear();
      await worker.close(true);
      connection.disconnect();
    },
  };
}

function nameOf(start: number, end: number): string {
  return `${start}-${end}`;
}
