import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Manifest, RunSpec, SegmentJob, StepRecord } from "@paddock/contract";
import { type Run, RunPhase, RunService } from "@paddock/proto";
import { createLogger, grpcClient, type OpenRedis, openRedis, sleep } from "@paddock/service-kit";
import { Worker } from "bullmq";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { type FakeWorkerOptions, startFakeWorker } from "../testing/fake-worker.js";
import { Cleanup } from "../testing/temporary.js";
import {
  type Coordinator,
  type CoordinatorOptions,
  startCoordinator,
} from "./start-coordinator.js";

const after = new Cleanup();
const afterFile = new Cleanup();
let redis: OpenRedis;
beforeAll(async () => {
  redis = await openRedis({ dir: await afterFile.folder() });
  afterFile.add(() => redis.close());
});
afterAll(() => afterFile.run());
afterEach(() => after.run());

async function start(options: Partial<CoordinatorOptions> = {}): Promise<Coordinator> {
  const coordinator = await startCoordinator({
    runDir: options.runDir ?? (await after.folder()),
    resume: false,
    host: "127.0.0.1",
    port: 0,
    metricsPort: 0,
    redisUrl: redis.url,
    logger: createLogger({ name: "test", level: "silent" }),
    signal: new AbortController().signal,
    ...options,
  });
  after.add(() => coordinator.close());
  return coordinator;
}

function work(address: string, name: string, options: Partial<FakeWorkerOptions> = {}) {
  const worker = startFakeWorker({ address, name, ...options });
  after.add(worker.kill);
  return worker;
}

function administer(address: string) {
  const client = grpcClient(address, RunService);
  after.add(client.close);
  return client;
}

async function stepsOf(runDir: string): Promise<StepRecord[]> {
  const text = await readFile(join(runDir, "steps.jsonl"), "utf8");
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line));
}

/** What must not depend on workers, kills and resumes. */
function numbersOf(steps: readonly StepRecord[]) {
  return steps.map(({ step, loss, losses, gradNorm, lr }) => ({
    step,
    loss,
    losses,
    gradNorm,
    lr,
  }));
}

/** Runs the spec undisturbed to its end. */
async function finishRun(spec: RunSpec, runDir: string) {
  const coordinator = await start({ runDir, spec });
  const workers = Array.from({ length: spec.fleet.workers }, (_, i) =>
    work(coordinator.address, `w${i}`),
  );
  const result = await coordinator.done;
  await Promise.all(workers.map((worker) => worker.ended));
  return { coordinator, workers, result };
}

test("a run goes from the first worker to its summary", async () => {
  const runDir = await after.folder();
  const updates: Run[] = [];
  const coordinator = await start({
    runDir,
    spec: exampleSpec(),
    onUpdate: (run) => updates.push(run),
  });
  const first = work(coordinator.address, "w0");
  const second = work(coordinator.address, "w1");
  const result = await coordinator.done;
  expect(result).toMatchObject({
    kind: "finished",
    summary: {
      runId: coordinator.runId,
      engine: "fake",
      workers: 2,
      logicalRanks: 4,
      steps: 10,
      images: 80,
      knn: { start: 0.5, end: 0.6, bank: 100, queries: 10 },
      checkpoint: "checkpoints/10",
    },
  });
  await Promise.all([first.ended, second.ended]);
  expect(first.shutdown).toEqual({ finished: true, reason: "finished" });

  const steps = await stepsOf(runDir);
  expect(steps.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(result.summary?.loss).toEqual({ first: steps[0]?.loss, last: steps[9]?.loss });
  expect(Object.keys(steps[0]?.gradNorm ?? {})).toEqual(["backbone", "dino_head"]);
  expect(await readdir(join(runDir, "checkpoints"))).toEqual(["10", "8"]);
  const manifest: Manifest = JSON.parse(
    await readFile(join(runDir, "checkpoints", "10", "manifest.json"), "utf8"),
  );
  expect(manifest).toMatchObject({ step: 10, workers: 2, cursor: 80, generation: 1 });
  expect(manifest.files.map(({ name }) => name)).toEqual(["g1-w0.bin", "g1-w1.bin"]);
  expect(JSON.parse(await readFile(join(runDir, "summary.json"), "utf8"))).toEqual(result.summary);
  expect(JSON.parse(await readFile(join(runDir, "spec.json"), "utf8"))).toEqual(exampleSpec());
  expect(updates.at(-1)).toMatchObject({ phase: RunPhase.RUN_PHASE_FINISHED, step: 10 });

  await coordinator.close();
  const again = await start({ runDir, resume: true });
  expect(await again.done).toEqual({ kind: "finished", summary: result.summary });
  await expect(start({ runDir, spec: exampleSpec() })).rejects.toMatchObject({
    code: "already-exists",
    message: expect.stringContaining("--resume"),
  });
});

test("losses and norms are bit-identical for every number of workers", async () => {
  const numbers = [];
  for (const workers of [1, 2, 3, 4]) {
    const runDir = await after.folder();
    await finishRun(exampleSpec({ steps: 4, fleet: { workers } }), runDir);
    numbers.push(numbersOf(await stepsOf(runDir)));
  }
  for (const other of numbers.slice(1)) expect(other).toEqual(numbers[0]);
});

test("a killed worker costs the steps since the last checkpoint, and no number changes", async () => {
  const undisturbed = await after.folder();
  await finishRun(exampleSpec(), undisturbed);

  const runDir = await after.folder();
  const coordinator = await start({ runDir, spec: exampleSpec() });
  work(coordinator.address, "w0");
  work(coordinator.address, "w1", {
    beforeStep: (step, { generation }) => (step === 6 && generation === 1 ? "die" : undefined),
  });
  const third = work(coordinator.address, "w2");
  expect(await coordinator.done).toMatchObject({ kind: "finished" });
  expect(third.assignments[0]).toMatchObject({
    generation: 2,
    startStep: 4,
    loadCheckpoint: true,
    workers: 2,
  });
  const steps = await stepsOf(runDir);
  expect(numbersOf(steps)).toEqual(numbersOf(await stepsOf(undisturbed)));
  expect(steps.map(({ generation }) => generation)).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
});

test("a drain finishes the step, writes a checkpoint and ends; a resume goes on with another W", async () => {
  const undisturbed = await after.folder();
  await finishRun(exampleSpec(), undisturbed);

  const runDir = await after.folder();
  const drain = new AbortController();
  const first = await start({ runDir, spec: exampleSpec(), signal: drain.signal });
  work(first.address, "w0", {
    beforeStep: (step) => {
      if (step === 6) drain.abort("SIGINT");
      return undefined;
    },
  });
  work(first.address, "w1");
  expect(await first.done).toMatchObject({ kind: "interrupted", reason: "SIGINT" });
  expect((await stepsOf(runDir)).length).toBe(7);
  expect(existsSync(join(runDir, "checkpoints", "7", "manifest.json"))).toBe(true);
  await first.close();

  const spec = exampleSpec({ fleet: { workers: 3, segmentSteps: 3 } });
  const second = await start({ runDir, resume: true, spec });
  const workers = ["w0", "w1", "w2"].map((name) => work(second.address, name));
  expect(await second.done).toMatchObject({ kind: "finished", summary: { workers: 3 } });
  expect(workers[2]?.assignments).toMatchObject([{ generation: 2, startStep: 7 }]);
  expect(numbersOf(await stepsOf(runDir))).toEqual(numbersOf(await stepsOf(undisturbed)));
});

test("a coordinator that is cut off leaves a run that can be resumed", async () => {
  const undisturbed = await after.folder();
  await finishRun(exampleSpec(), undisturbed);

  const runDir = await after.folder();
  const first = await start({ runDir, spec: exampleSpec() });
  work(first.address, "w0", { beforeStep: (step) => (step === 9 ? "hang" : undefined) });
  const other = work(first.address, "w1");
  while (other.decisions.length < 9) await sleep(10);
  await first.close();
  expect(await first.done).toMatchObject({ kind: "interrupted" });

  const second = await start({ runDir, resume: true });
  work(second.address, "w0");
  work(second.address, "w1");
  expect(await second.done).toMatchObject({ kind: "finished" });
  expect(numbersOf(await stepsOf(runDir))).toEqual(numbersOf(await stepsOf(undisturbed)));
});

test("a run is watched, paused, resumed, scaled and cancelled over the API", async () => {
  const runDir = await after.folder();
  let gate = Promise.resolve();
  const spec = exampleSpec({ steps: 100_000, fleet: { workers: 1, segmentSteps: 50 } });
  const coordinator = await start({ runDir, spec });
  const api = administer(coordinator.address);
  work(coordinator.address, "w0");
  const seen: Run[] = [];
  const watching = (async () => {
    for await (const run of api.watch({ runId: "" })) seen.push(run);
  })();
  while ((await api.get({ runId: "" })).step < 5) await sleep(10);

  const paused = await api.pause({ runId: coordinator.runId });
  expect(paused.phase).toBe(RunPhase.RUN_PHASE_PAUSED);
  await sleep(100);
  expect((await api.get({ runId: "" })).step).toBe(paused.step);
  gate = Promise.resolve();
  await api.resume({ runId: "" });
  while ((await api.get({ runId: "" })).step < paused.step + 5) await sleep(10);

  await api.scale({ runId: "", workers: 2 });
  work(coordinator.address, "w1");
  while ((await api.get({ runId: "" })).generation < 2) await sleep(10);
  await gate;
  const before = await api.checkpointNow({ runId: "" });
  while ((await api.get({ runId: "" })).checkpointStep <= before.checkpointStep) await sleep(10);
  await expect(api.scale({ runId: "", workers: 5 })).rejects.toMatchObject({
    code: "invalid-argument",
  });
  await expect(api.get({ runId: "nothing" })).rejects.toMatchObject({ code: "not-found" });
  await expect(api.submit({ specJson: JSON.stringify(spec) })).rejects.toMatchObject({
    code: "already-exists",
  });

  await api.cancel({ runId: "" });
  expect(await coordinator.done).toMatchObject({ kind: "interrupted", reason: "cancelled" });
  await watching;
  expect(seen.at(-1)).toMatchObject({
    phase: RunPhase.RUN_PHASE_INTERRUPTED,
    reason: "cancelled",
  });
  await expect(api.pause({ runId: "" })).rejects.toMatchObject({ code: "invalid-argument" });
  const steps = await stepsOf(runDir);
  expect(steps.map(({ step }) => step)).toEqual(steps.map((_, index) => index));
});

test("a coordinator without a run waits for one to be submitted", async () => {
  const coordinator = await start();
  expect(coordinator.runId).toBe("");
  const workers = ["w0", "w1"].map((name) => work(coordinator.address, name));
  const api = administer(coordinator.address);
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

test("a worker of another major version is refused with a clear error, one of another minor is not", async () => {
  const { address } = await start({ spec: exampleSpec() });
  await expect(
    work(address, "new", { version: { major: 2, minor: 0 } }).ended,
  ).rejects.toMatchObject({
    code: "version-mismatch",
    message: expect.stringMatching(/expected protocol version 1\.x, received 2\.0/),
  });
  work(address, "w0", { version: { major: 1, minor: 99 } });
  const api = administer(address);
  while ((await api.get({ runId: "" })).workers.length === 0) await sleep(10);
  await expect(work(address, "w0").ended).rejects.toMatchObject({ code: "already-exists" });
  expect((await api.get({ runId: "" })).waitingFor).toMatch(/^1 more of 2 workers/);
});

test("a worker that hangs loses its lease, is told so, and the others go on", async () => {
  const spec = exampleSpec({ fleet: { workers: 2, leaseSeconds: 0.5 } });
  const { address, done } = await start({ spec });
  work(address, "w0");
  const hanging = work(address, "w1", { beforeStep: (step) => (step === 5 ? "hang" : undefined) });
  await expect(hanging.ended).rejects.toMatchObject({ code: "lease-lost" });
  expect(await done).toMatchObject({ kind: "finished", summary: { workers: 1 } });
});

test("a failure that no retry can cure ends the run with its code", async () => {
  const { address, done } = await start({ spec: exampleSpec() });
  const worker = work(address, "w0");
  worker.send({
    kind: "failed",
    failed: {
      generation: 0,
      step: 0,
      code: "data-unavailable",
      message: "expected a folder /data, received nothing; check data.path",
    },
  });
  expect(await done).toMatchObject({
    kind: "failed",
    code: "data-unavailable",
    reason: expect.stringContaining("check data.path"),
    summary: { steps: 0, loss: { first: null } },
  });
  await worker.ended;
});

test("a checkpoint whose file is not there fails the run, and the run before it stays", async () => {
  const runDir = await after.folder();
  const coordinator = await start({ runDir, spec: exampleSpec({ fleet: { workers: 1 } }) });
  const worker = work(coordinator.address, "w0", {
    beforeStep: (step, { generation }) => {
      if (step !== 4) return undefined;
      const lie = { file: "nothing.bin", bytes: 1, sha256: "", worker: 0 };
      worker.send({
        kind: "checkpointWritten",
        checkpointWritten: { generation, step: 8, ...lie },
      });
      return undefined;
    },
  });
  expect(await coordinator.done).toMatchObject({ kind: "finished" });
  const stale = await fetch(`http://${coordinator.metricsAddress}/metrics`);
  expect(await stale.text()).toMatch(/paddock_stale_messages_total\{role="coordinator"\} 1/);
});

test("a corrupted manifest is found before a run is resumed from it", async () => {
  const runDir = await after.folder();
  const first = await start({ runDir, spec: exampleSpec({ steps: 8, fleet: { workers: 1 } }) });
  const stop = work(first.address, "w0", {
    beforeStep: (step) => (step === 5 ? "hang" : undefined),
  });
  while (stop.decisions.length < 5) await sleep(10);
  while (!existsSync(join(runDir, "checkpoints", "4", "manifest.json"))) await sleep(10);
  await sleep(50);
  await first.close();
  const { writeFile } = await import("node:fs/promises");
  const path = join(runDir, "checkpoints", "4", "manifest.json");
  const manifest = await readFile(path, "utf8");
  await writeFile(path, manifest.replace('"step": 4', '"step": 5'));
  await expect(start({ runDir, resume: true })).rejects.toMatchObject({
    code: "checkpoint-corrupt",
  });
  await writeFile(path, manifest);
  await start({ runDir, resume: true });
});

test("a used port stops the start and leaves nothing recorded", async () => {
  const { address } = await start({ spec: exampleSpec() });
  const port = Number(address.split(":")[1]);
  const runDir = await after.folder();
  await expect(start({ runDir, spec: exampleSpec(), port })).rejects.toMatchObject({
    code: "port-in-use",
  });
  await start({ runDir, spec: exampleSpec() });
});

test("two coordinators never share a run directory", async () => {
  const runDir = await after.folder();
  await start({ runDir, spec: exampleSpec() });
  await expect(start({ runDir, resume: true })).rejects.toMatchObject({
    code: "already-exists",
    message: expect.stringContaining("ledger.lock"),
  });
});

test("a changed recipe cannot be resumed, a changed fleet can; a missing run is not found", async () => {
  const runDir = await after.folder();
  await expect(start({ runDir, spec: exampleSpec(), resume: true })).rejects.toMatchObject({
    code: "not-found",
  });
  await (await start({ runDir, spec: exampleSpec() })).close();
  const changed = exampleSpec({ batchPerRank: 3 });
  await expect(start({ runDir, spec: changed, resume: true })).rejects.toMatchObject({
    code: "invalid-spec",
    message: expect.stringContaining("batchPerRank: expected 2, received 3"),
  });
  await start({ runDir, spec: exampleSpec({ fleet: { workers: 4 } }), resume: true });
});

test("each worker finds its segments as jobs in its queue", async () => {
  const spec = exampleSpec({ steps: 10, fleet: { workers: 2, segmentSteps: 4 } });
  const { address, done } = await start({ spec });
  const jobs: SegmentJob[] = [];
  const queues = new Set<string>();
  const consume = (queue: string): void => {
    if (queues.has(queue)) return;
    queues.add(queue);
    const connection = new Redis(redis.url, { maxRetriesPerRequest: null });
    const consumer = new Worker<SegmentJob>(queue, async (job) => void jobs.push(job.data), {
      connection,
    });
    after.add(async () => {
      await consumer.close();
      connection.disconnect();
    });
  };
  for (const name of ["w0", "w1"]) {
    work(address, name, {
      beforeStep: (step, { segmentQueue, generation, worker }) => {
        consume(segmentQueue);
        const has = jobs.some(
          (job) => job.worker === worker && job.start <= step && step < job.end,
        );
        if (has || generation > 1) return undefined;
        return undefined;
      },
    });
  }
  expect(await done).toMatchObject({ kind: "finished" });
  expect([...queues].sort()).toEqual([
    expect.stringMatching(/^paddock-run-.*-g1-w0$/),
    expect.stringMatching(/^paddock-run-.*-g1-w1$/),
  ]);
});

test("metrics, health and status tell of the run", async () => {
  const coordinator = await start({ spec: exampleSpec({ steps: 5 }) });
  const get = async (path: string) =>
    (await fetch(`http://${coordinator.metricsAddress}${path}`)).text();
  work(coordinator.address, "w0");
  expect(await get("/healthz")).toBe("ok\n");
  work(coordinator.address, "w1", { beforeStep: (step) => (step === 4 ? "hang" : undefined) });
  while (JSON.parse(await get("/status")).step < 4) await sleep(10);
  const text = await get("/metrics");
  const value = (series: string) => {
    const line = text
      .split("\n")
      .find(
        (l) =>
          l.startsWith(series.replace("}", ',role="coordinator"}')) ||
          l.startsWith(`${series}{role=`),
      );
    return line === undefined ? undefined : Number(line.split(" ").at(-1));
  };
  expect(value("paddock_steps_total")).toBe(4);
  expect(value("paddock_images_total")).toBe(32);
  expect(value("paddock_workers")).toBe(2);
  expect(value('paddock_loss{part="koleo"}')).toBeTypeOf("number");
  expect(value('paddock_grad_norm{submodule="backbone"}')).toBeGreaterThan(0);
  expect(value('paddock_step_seconds{part="student"}')).toBeGreaterThan(0);
  expect(value('paddock_state_bytes{worker="1"}')).toBe(400);
  expect(value("paddock_exchange_bytes_total")).toBe(8000);
  expect(value("paddock_redis_used_memory_bytes")).toBeGreaterThan(0);
  expect(value("paddock_knn_accuracy")).toBe(0.54);
});
