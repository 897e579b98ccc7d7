/**
 * Segments as BullMQ jobs: one queue per generation and worker, one job per segment. The manager is told which jobs there
 * should be and works towards it in the background: training never waits for it, and when Redis loses everything the
 * jobs are made again. Jobs carry numbers, never tensors.
 */

import { PaddockError, type Range, type SegmentJob } from "@paddock/contract";
import { hideSecret, type Logger, redisTarget, withDeadline } from "@paddock/service-kit";
import { failpoint } from "@paddock/service-kit/failpoints";
import { Queue } from "bullmq";
import { Redis } from "ioredis";
import { segmentQueueName } from "../run/membership.js";

export interface SegmentQueues {
  /** From now on there are jobs for exactly these segments of this generation; queues of other generations go. */
  want(generation: number, workers: number, segments: readonly Range[]): void;
  /** Looks after the jobs: those that Redis has lost are made again. Cheap; call it every few seconds. */
  refresh(): void;
  /** Looks whether Redis answers. Cheap; call it every second. */
  probe(): void;
  /** Since when Redis does not answer, in unix milliseconds; null: it does. */
  readonly awaySinceMs: number | null;
  /** Resolves when what was wanted has been done; never while Redis is away. */
  settled(): Promise<void>;
  /** Redis's `used_memory` in bytes, or undefined while Redis is away. */
  usedMemoryBytes(): Promise<number | undefined>;
  /** Waits a moment for pending removals, then disconnects. */
  close(): Promise<void>;
}

interface Wanted {
  readonly generation: number;
  readonly workers: number;
  readonly segments: readonly Range[];
}

/** Finished jobs that stay visible in a queue. Removing them at once races with whoever waits for them. */
const keptJobs = { count: 16 };
const closeMs = 1_000;
const infoMs = 500;
/** BullMQ's limit. */
const lastPriority = 2 ** 21 - 1;

export function openSegmentQueues(runId: string, redisUrl: string, log: Logger): SegmentQueues {
  // BullMQ's own requirement: commands wait for the connection instead of failing.
  const { url, tls } = redisTarget(redisUrl);
  const connection = new Redis(url, {
    ...tls,
    maxRetriesPerRequest: null,
    retryStrategy: (attempt) => Math.min(100 * attempt, 2_000),
  });
  const queues = new Map<string, Queue<SegmentJob>>();
  const added = new Set<string>();
  /** Queues that may exist, of this generation and of those before it. */
  const names = new Set<string>();
  let wanted: Wanted = { generation: 0, workers: 0, segments: [] };
  let working = Promise.resolve();
  let isAway = false;
  let awaySinceMs: number | null = null;
  let isProbing = false;

  connection.on("error", (error: Error) => {
    if (!isAway) {
      log.warn(
        { redis: hideSecret(redisUrl), error: error.message },
        "redis is away: segments wait for it",
      );
    }
    isAway = true;
  });
  connection.on("ready", () => {
    if (isAway) log.info({ redis: hideSecret(redisUrl) }, "redis is back");
    isAway = false;
    refresh();
  });

  function queueOf(name: string): Queue<SegmentJob> {
    const known = queues.get(name);
    if (known) return known;
    const queue = new Queue<SegmentJob>(name, { connection });
    queue.on("error", () => undefined); // the connection's own handler reports it
    queues.set(name, queue);
    return queue;
  }

  async function reconcile(): Promise<void> {
    const { generation, workers, segments } = wanted;
    const live = segments.length > 0 ? queueNames(wanted) : [];
    for (const name of [...names].filter((known) => !live.includes(known))) {
      const queue = queueOf(name);
      await queue.obliterate({ force: true });
      await queue.close();
      queues.delete(name);
      names.delete(name);
    }
    for (const [worker, name] of live.entries()) {
      for (const { start, end } of segments) {
        await add(queueOf(name), { runId, generation, worker, workers, start, end });
      }
      await failpoint("coordinator.segments.made");
    }
  }

  function queueNames({ generation, workers }: Wanted): string[] {
    return Array.from({ length: workers }, (_, w) => segmentQueueName(runId, generation, w));
  }

  /** Adding twice is one job: its id is its range. */
  async function add(queue: Queue<SegmentJob>, job: SegmentJob): Promise<void> {
    const jobId = `steps-${job.start}-${job.end}`;
    const key = `${queue.name} ${jobId}`;
    if (added.has(key)) return;
    await queue.add("segment", job, {
      jobId,
      // In order of steps, also when Redis lost some of them: they are made again in any order.
      priority: Math.min(job.start + 1, lastPriority),
      removeOnComplete: keptJobs,
      removeOnFail: keptJobs,
    });
    added.add(key);
  }

  function work(): void {
    working = working.then(reconcile).catch((error: unknown) => {
      log.warn({ error: PaddockError.from(error).message }, "segment jobs could not be arranged");
    });
  }

  /** A Redis that is stopped keeps its connections: only an answer shows that it lives. */
  function probe(): void {
    if (isProbing) return;
    isProbing = true;
    const deadline = { timeoutMs: infoMs, what: "Redis", code: "redis-unavailable" } as const;
    void withDeadline(deadline, () => connection.ping()).then(
      () => {
        awaySinceMs = null;
        isProbing = false;
      },
      () => {
        awaySinceMs ??= Date.now() - infoMs;
        isProbing = false;
      },
    );
  }

  function refresh(): void {
    added.clear();
    work();
  }

  return {
    want(generation, workers, segments) {
      wanted = { generation, workers, segments };
      for (const name of queueNames(wanted)) names.add(name);
      work();
    },
    refresh() {
      if (connection.status === "ready") refresh();
    },
    probe,
    get awaySinceMs() {
      return awaySinceMs;
    },
    settled: () => working,
    async usedMemoryBytes() {
      if (connection.status !== "ready") return undefined;
      // A connection that has just broken still looks ready, and its commands wait for the next one.
      const deadline = { timeoutMs: infoMs, what: "Redis", code: "redis-unavailable" } as const;
      const info = await withDeadline(deadline, () => connection.info("memory")).catch(() => "");
      const match = /^used_memory:(\d+)/m.exec(info);
      return match ? Number(match[1]) : undefined;
    },
    async close() {
      const deadline = { timeoutMs: closeMs, what: "Redis", code: "redis-unavailable" } as const;
      await withDeadline(deadline, () => working).catch(() => undefined);
      connection.disconnect();
    },
  };
}
