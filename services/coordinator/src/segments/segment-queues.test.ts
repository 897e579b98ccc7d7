import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import type { SegmentJob } from "@paddock/contract";
import { createLogger, sleep } from "@paddock/service-kit";
import { Queue } from "bullmq";
import { Redis } from "ioredis";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Cleanup } from "../testing/temporary.js";
import { openSegmentQueues, type SegmentQueues } from "./segment-queues.js";

const after = new Cleanup();
let port: number;
let url: string;
let redis: Redis;
beforeEach(async () => {
  port = await freePort();
  url = `redis://127.0.0.1:${port}`;
  redis = new Redis(url, { maxRetriesPerRequest: null, lazyConnect: true });
  redis.on("error", () => undefined);
  after.add(() => redis.disconnect());
});
afterEach(() => after.run());

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  return address && typeof address === "object" ? address.port : 0;
}

/** A Redis on `port` that answers. */
async function startRedis(): Promise<ChildProcess> {
  const options = ["--port", String(port), "--save", "", "--appendonly", "no"];
  const server = spawn("redis-server", options, { stdio: "ignore" });
  after.add(() => server.kill("SIGKILL"));
  await redis.ping();
  return server;
}

function open(): SegmentQueues {
  const log = createLogger({ name: "test", level: "silent" });
  const queues = openSegmentQueues("run", url, log);
  after.add(() => queues.close());
  return queues;
}

async function jobsOf(generation: number, worker: number): Promise<SegmentJob[]> {
  const queue = new Queue<SegmentJob>(`paddock-run-g${generation}-w${worker}`, {
    connection: redis,
  });
  const jobs = await queue.getJobs(["prioritized"], 0, -1, true);
  await queue.close();
  return jobs.map((job) => job.data);
}

const first = { start: 0, end: 4 };
const second = { start: 4, end: 8 };

test("there is one job per worker and segment, in order, however often it is asked for", async () => {
  await startRedis();
  const queues = open();
  queues.want(1, 2, [first]);
  queues.want(1, 2, [first, second]);
  queues.refresh();
  await queues.settled();
  for (const worker of [0, 1]) {
    const job = { runId: "run", generation: 1, worker, workers: 2 };
    expect(await jobsOf(1, worker)).toEqual([
      { ...job, ...first },
      { ...job, ...second },
    ]);
  }
  expect(await queues.usedMemoryBytes()).toBeGreaterThan(100_000);
});

test("the queues of a dead generation go, also those of an earlier life of the coordinator", async () => {
  await startRedis();
  const before = open();
  before.want(1, 12, [first, second]); // 12 queues: no warning about leaking listeners
  await before.settled();
  await before.close();
  expect((await redis.keys("bull:*")).length).toBeGreaterThan(0);
  const queues = open();
  queues.want(1, 12, []);
  queues.want(2, 1, [second]);
  await queues.settled();
  const names = new Set((await redis.keys("bull:*")).map((key) => key.split(":")[1]));
  expect([...names]).toEqual(["paddock-run-g2-w0"]);
  queues.want(2, 1, []);
  await queues.settled();
  expect(await redis.keys("bull:*")).toEqual([]);
});

test("jobs that Redis lost are made again", async () => {
  const server = await startRedis();
  const queues = open();
  queues.want(1, 1, [first]);
  await queues.settled();
  await redis.flushall();
  queues.refresh();
  await queues.settled();
  expect(await jobsOf(1, 0)).toMatchObject([first]);

  server.kill("SIGKILL");
  await once(server, "exit");
  expect(await queues.usedMemoryBytes()).toBeUndefined();
  queues.want(1, 1, [first, second]);
  await startRedis();
  while ((await jobsOf(1, 0)).length < 2) await sleep(20);
  expect(await jobsOf(1, 0)).toMatchObject([first, second]); // also when the second was made first
});

test("a Redis that is not there delays the jobs and nothing else", async () => {
  const queues = open();
  queues.want(1, 1, [first]);
  await sleep(100);
  await startRedis();
  while ((await jobsOf(1, 0)).length < 1) await sleep(20);
});

test("closing does not wait for a Redis that never comes", async () => {
  const queues = open();
  queues.want(1, 1, [first]);
  await queues.close();
});
