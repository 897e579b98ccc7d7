/** Takes this worker's segment jobs from its BullMQ queue, one at a time, and reports progress on them. */
import type { SegmentJob } from "@paddock/contract";
import { redisTarget } from "@paddock/service-kit";
import { UnrecoverableError, Worker } from "bullmq";
import { Redis } from "ioredis";

export interface SegmentConsumer {
  /** Takes no further job. The one in progress is left to fail by itself. */
  close(): Promise<void>;
}

/**
 * @param run executes a job; true: the run stops here. Its failure fails the job for good: a new generation brings a new queue.
 * @param onStop called once, after a job whose `run` returned true
 */
export function consumeSegments(options: {
  readonly redisUrl: string;
  readonly queue: string;
  readonly run: (job: SegmentJob, onStep: (done: number) => Promise<void>) => Promise<boolean>;
  readonly onStop: () => void;
  readonly onError: (error: Error) => void;
}): SegmentConsumer {
  const { url, tls } = redisTarget(options.redisUrl);
  const connection = new Redis(url, { ...tls, maxRetriesPerRequest: null });
  // Its loss also shows in the exchange and in the lease, which decide what follows.
  connection.on("error", () => undefined);
  const worker = new Worker<SegmentJob>(
    options.queue,
    async (job) => {
      try {
        const steps = job.data.end - job.data.start;
        const stop = await options.run(job.data, (done) =>
          job.updateProgress((100 * done) / steps),
        );
        if (stop) options.onStop();
      } catch (thrown) {
        const error = thrown instanceof Error ? thrown : new Error(String(thrown));
        options.onError(error);
        const failure = new UnrecoverableError(error.message);
        failure.cause = error;
        throw failure;
      }
    },
    {
      connection,
      concurrency: 1,
      drainDelay: 1,
      // Only a backstop: leases are renewed by progress on the session stream. Short, because a connection cut at the wrong
      // moment leaves a job active that nobody runs; taking it again is harmless, the generation knows what it has done.
      lockDuration: 10_000,
      stalledInterval: 5_000,
      maxStalledCount: 100,
    },
  );
  worker.on("error", () => undefined);
  return {
    async close() {
      await worker.close(true);
      connection.disconnect();
    },
  };
}
