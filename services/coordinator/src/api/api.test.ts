import type { SegmentJob } from "@paddock/contract";
import { type Run, RunPhase } from "@paddock/proto";
import { type OpenRedis, openRedis, sleep } from "@paddock/service-kit";
import { Worker } from "bullmq";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { Cluster, readSteps } from "../testing/cluster.js";
import { exampleSpec } from "../testing/example.js";
import { Cleanup } from "../testing/temporary.js";

const atEnd = new Cleanup();
let redis: OpenRedis;
let cluster: Cluster;
beforeAll(async () => {
  redis = await openRedis({ dir: await atEnd.folder() });
  atEnd.add(() => redis.close());
});
beforeEach(() => {
  cluster = new Cluster(redis);
});
afterEach(() => cluster.close());
afterAll(() => atEnd.run());

async function waitFor(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(10);
}

test("a run is watched, paused, resumed, scaled and cancelled", async () => {
  const runDir = await cluster.folder();
  const spec = exampleSpec({ steps: 100_000, fleet: { workers: 1 } });
  const coordinator = await cluster.start({ runDir, spec });
  const api = cluster.administer(coordinator.address);
  const get = () => api.get({ runId: "" });
  const watching = (async () => {
    const runs: Run[] = [];
    for await (const run of api.watch({ runId: "" })) runs.push(run);
    return runs;
  })();
  cluster.work(coordinator.address, "w0");
  await waitFor(async () => (await get()).step >= 5);

  const paused = await api.pause({ runId: coordinator.runId });
  expect(paused.phase).toBe(RunPhase.RUN_PHASE_PAUSED);
  await waitFor(async () => (await get()).waitingFor === "resume: the run is paused");
  expect((await get()).step).toBe(paused.step);
  await api.resume({ runId: "" });
  await waitFor(async () => (await get()).step >= paused.step + 5);

  await api.scale({ runId: "", workers: 2 });
  cluster.work(coordinator.address, "w1");
  await waitFor(async () => (await get()).generation === 2);
  const before = await api.checkpointNow({ runId: "" });
  await waitFor(async () => (await get()).checkpointStep > before.checkpointStep);

  await api.cancel({ runId: "" });
  expect(await coordinator.done).toMatchObject({ kind: "interrupted", reason: "cancelled" });
  expect((await watching).at(-1)).toMatchObject({
    phase: RunPhase.RUN_PHASE_INTERRUPTED,
    reason: "cancelled",
  });
  await expect(api.pause({ runId: "" })).rejects.toMatchObject({
    code: "invalid-argument",
    message: expect.stringContaining("has ended"),
  });
  const steps = (await readSteps(runDir)).map(({ step }) => step);
  expect(steps).toEqual(steps.map((_, index) => index));
});

test("requests that make no sense are refused with what was expected", async () => {
  const { address } = await cluster.start({ spec: exampleSpec() });
  const api = cluster.administer(address);
  await expect(api.scale({ runId: "", workers: 5 })).rejects.toMatchObject({
    code: "invalid-argument",
    message: expect.stringContaining("expected 1 to 4 workers"),
  });
  await expect(api.get({ runId: "nothing" })).rejects.toMatchObject({ code: "not-found" });
  const specJson = JSON.stringify(exampleSpec());
  await expect(api.submit({ specJson })).rejects.toMatchObject({ code: "already-exists" });
});

test("a coordinator without a run waits for one to be submitted", async () => {
  const coordinator = await cluster.start();
  expect(coordinator.runId).toBe("");
  const workers = ["w0", "w1"].map((name) => cluster.work(coordinator.address, name));
  const api = cluster.administer(coordinator.address);
  expect(await api.list({})).toEqual({ runs: [] });
  await expect(api.submit({ specJson: "{" })).rejects.toMatchObject({ code: "invalid-spec" });
  await expect(api.submit({ specJson: '{"stepz":1}' })).rejects.toMatchObject({
    code: "invalid-spec",
    message: expect.stringContaining('did you mean "steps"?'),
  });
  const run = await api.submit({ specJson: JSON.stringify(exampleSpec({ steps: 3 })) });
  expect(run).toMatchObject({ steps: 3, runId: coordinator.runId });
  expect(await coordinator.done).toMatchObject({ kind: "finished" });
  await Promise.all(workers.map((worker) => worker.ended));
});

test("a drain of a coordinator without a run ends it", async () => {
  const coordinator = await cluster.start();
  coordinator.drain("SIGTERM");
  expect(await coordinator.done).toEqual({
    kind: "interrupted",
    reason: "SIGTERM",
    summary: null,
  });
});

test("a worker of another major version is refused with a clear error, one of another minor is not", async () => {
  const { address } = await cluster.start({ spec: exampleSpec() });
  const newer = cluster.work(address, "new", { version: { major: 3, minor: 0 } });
  await expect(newer.ended).rejects.toMatchObject({
    code: "version-mismatch",
    message: expect.stringMatching(/expected protocol version 2\.x, received 3\.0/),
  });
  cluster.work(address, "w0", { version: { major: 2, minor: 99 } });
  const api = cluster.administer(address);
  await waitFor(async () => (await api.get({ runId: "" })).workers.length === 1);
  expect((await api.get({ runId: "" })).waitingFor).toMatch(/^1 more of 2 workers/);
});

test("two workers of one name: the second is refused; after the first has left it is not", async () => {
  const { address } = await cluster.start({ spec: exampleSpec() });
  const api = cluster.administer(address);
  const connected = async () => (await api.get({ runId: "" })).workers.length;
  const first = cluster.work(address, "w0");
  await waitFor(async () => (await connected()) === 1);
  await expect(cluster.work(address, "w0").ended).rejects.toMatchObject({
    code: "already-exists",
  });
  first.kill();
  await waitFor(async () => (await connected()) === 0);
  cluster.work(address, "w0");
  await waitFor(async () => (await connected()) === 1);
});

test("a failure that no retry can cure ends the run with its code", async () => {
  const { address, done } = await cluster.start({ spec: exampleSpec() });
  const worker = cluster.work(address, "w0");
  const message = "expected a folder /data, received nothing; check data.path";
  const failed = { generation: 0, step: 0, code: "data-unavailable", message };
  worker.send({ kind: "failed", failed });
  expect(await done).toMatchObject({
    kind: "failed",
    code: "data-unavailable",
    reason: expect.stringContaining("check data.path"),
    summary: { steps: 0, loss: { first: null } },
  });
  await worker.ended;
});

test("each worker finds its segments as jobs in its queue", async () => {
  const spec = exampleSpec({ fleet: { workers: 2, segmentSteps: 4 } });
  const coordinator = await cluster.start({ spec });
  const jobs: SegmentJob[] = [];
  const consume = (queue: string): void => {
    const connection = new Redis(redis.url, { maxRetriesPerRequest: null });
    const take = async (job: { data: SegmentJob }): Promise<void> => void jobs.push(job.data);
    const consumer = new Worker<SegmentJob>(queue, take, { connection });
    cluster.closeAtEnd(async () => {
      await consumer.close();
      connection.disconnect();
    });
  };
  for (const name of ["w0", "w1"]) {
    cluster.work(coordinator.address, name, {
      beforeStep: async (step, { segmentQueue, worker }) => {
        if (step === 0) consume(segmentQueue);
        await waitFor(() =>
          jobs.some((job) => job.worker === worker && job.start <= step && step < job.end),
        );
        return undefined;
      },
    });
  }
  expect(await coordinator.done).toMatchObject({ kind: "finished" });
  const job = { runId: coordinator.runId, generation: 1, workers: 2 };
  for (const worker of [0, 1]) {
    expect(jobs.filter((known) => known.worker === worker)).toEqual([
      { ...job, worker, start: 0, end: 4 },
      { ...job, worker, start: 4, end: 8 },
      { ...job, worker, start: 8, end: 10 },
    ]);
  }
});

test("metrics, health and status tell of the run", async () => {
  const coordinator = await cluster.start({ spec: exampleSpec({ steps: 6 }) });
  const get = async (path: string) =>
    (await fetch(`http://${coordinator.metricsAddress}${path}`)).text();
  expect(await get("/healthz")).toBe("ok\n");
  cluster.work(coordinator.address, "w0");
  cluster.work(coordinator.address, "w1", {
    beforeStep: (step) => (step === 5 ? "hang" : undefined),
  });
  await waitFor(async () => JSON.parse(await get("/status")).step === 5);
  const lines = (await get("/metrics")).replaceAll(/,?role="coordinator",?/g, "").split("\n");
  const value = (series: string): number | undefined => {
    const line = lines.find((known) => known.startsWith(`${series} `));
    return line === undefined ? undefined : Number(line.split(" ").at(-1));
  };
  expect(value("paddock_steps_total{}")).toBe(5);
  expect(value("paddock_images_total{}")).toBe(40);
  expect(value("paddock_workers{}")).toBe(2);
  expect(value('paddock_loss{part="koleo"}')).toBeTypeOf("number");
  expect(value('paddock_grad_norm{submodule="backbone"}')).toBeGreaterThan(0);
  expect(value('paddock_step_seconds{part="student"}')).toBeGreaterThan(0);
  expect(value('paddock_state_bytes{worker="1"}')).toBe(400);
  expect(value("paddock_exchange_bytes_total{}")).toBe(10_000);
  expect(value("paddock_redis_used_memory_bytes{}")).toBeGreaterThan(0);
  expect(value("paddock_knn_accuracy{}")).toBe(0.54);
});
