import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Manifest } from "@paddock/contract";
import { type Run, RunPhase } from "@paddock/proto";
import { type OpenRedis, openRedis, sleep } from "@paddock/service-kit";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { Cluster, readNumbers, readSteps } from "../testing/cluster.js";
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

test("a run goes from the first worker to its summary", async () => {
  const runDir = await cluster.folder();
  const updates: Run[] = [];
  const coordinator = await cluster.start({
    runDir,
    spec: exampleSpec(),
    onUpdate: (run) => updates.push(run),
  });
  const first = cluster.work(coordinator.address, "w0");
  const second = cluster.work(coordinator.address, "w1");
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

  const steps = await readSteps(runDir);
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
  const again = await cluster.start({ runDir, resume: true });
  expect(await again.done).toEqual({ kind: "finished", summary: result.summary });
  await expect(cluster.start({ runDir, spec: exampleSpec() })).rejects.toMatchObject({
    code: "already-exists",
    message: expect.stringContaining("--resume"),
  });
});

test("losses and norms are bit-identical for every number of workers", async () => {
  const numbers = [];
  for (const workers of [1, 2, 3, 4]) {
    const runDir = await cluster.finish(exampleSpec({ steps: 4, fleet: { workers } }));
    numbers.push(await readNumbers(runDir));
  }
  for (const other of numbers.slice(1)) expect(other).toEqual(numbers[0]);
});

test("a killed worker costs the steps since the last checkpoint, and no number changes", async () => {
  const undisturbed = await cluster.finish(exampleSpec());
  const runDir = await cluster.folder();
  const coordinator = await cluster.start({ runDir, spec: exampleSpec() });
  cluster.work(coordinator.address, "w0");
  cluster.work(coordinator.address, "w1", {
    beforeStep: (step, { generation }) => (step === 6 && generation === 1 ? "die" : undefined),
  });
  const spare = cluster.work(coordinator.address, "w2");
  expect(await coordinator.done).toMatchObject({ kind: "finished" });
  expect(spare.assignments[0]).toMatchObject({
    generation: 2,
    startStep: 4,
    loadCheckpoint: true,
    workers: 2,
  });
  expect(await readNumbers(runDir)).toEqual(await readNumbers(undisturbed));
  const generations = (await readSteps(runDir)).map(({ generation }) => generation);
  expect(generations).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
});

test("a drain finishes the step, writes a checkpoint and ends; a resume goes on with another W", async () => {
  const undisturbed = await cluster.finish(exampleSpec());
  const runDir = await cluster.folder();
  const drain = new AbortController();
  const first = await cluster.start({ runDir, spec: exampleSpec(), signal: drain.signal });
  cluster.work(first.address, "w0", {
    beforeStep: (step) => {
      if (step === 6) drain.abort("SIGINT");
      return undefined;
    },
  });
  cluster.work(first.address, "w1");
  expect(await first.done).toMatchObject({ kind: "interrupted", reason: "SIGINT" });
  expect((await readSteps(runDir)).length).toBe(7);
  expect(existsSync(join(runDir, "checkpoints", "7", "manifest.json"))).toBe(true);
  await first.close();

  const spec = exampleSpec({ fleet: { workers: 3, segmentSteps: 3 } });
  const second = await cluster.start({ runDir, resume: true, spec });
  const workers = ["w0", "w1", "w2"].map((name) => cluster.work(second.address, name));
  expect(await second.done).toMatchObject({ kind: "finished", summary: { workers: 3 } });
  expect(workers[2]?.assignments).toMatchObject([{ generation: 2, startStep: 7 }]);
  expect(await readNumbers(runDir)).toEqual(await readNumbers(undisturbed));
});

test("a coordinator that is cut off leaves a run that can be resumed", async () => {
  const undisturbed = await cluster.finish(exampleSpec());
  const runDir = await cluster.folder();
  const first = await cluster.start({ runDir, spec: exampleSpec() });
  cluster.work(first.address, "w0", { beforeStep: (step) => (step === 9 ? "hang" : undefined) });
  const other = cluster.work(first.address, "w1");
  await waitFor(() => other.decisions.length === 9);
  await first.close();
  expect(await first.done).toMatchObject({ kind: "interrupted" });

  const second = await cluster.start({ runDir, resume: true });
  cluster.work(second.address, "w0");
  cluster.work(second.address, "w1");
  expect(await second.done).toMatchObject({ kind: "finished" });
  expect(await readNumbers(runDir)).toEqual(await readNumbers(undisturbed));
});

test("a worker that hangs loses its lease, is told so, and the others go on", async () => {
  const spec = exampleSpec({ fleet: { workers: 2, leaseSeconds: 0.5 } });
  const { address, done } = await cluster.start({ spec });
  cluster.work(address, "w0");
  const hanging = cluster.work(address, "w1", {
    beforeStep: (step) => (step === 5 ? "hang" : undefined),
  });
  await expect(hanging.ended).rejects.toMatchObject({ code: "lease-lost" });
  expect(await done).toMatchObject({ kind: "finished", summary: { workers: 1 } });
});

test("a checkpoint file of the wrong size never becomes a checkpoint; the last one ends the run and is named", async () => {
  const runDir = await cluster.folder();
  const { address, done } = await cluster.start({ runDir, spec: exampleSpec() });
  cluster.work(address, "w0");
  cluster.work(address, "w1", { lieBytes: 1 });
  expect(await done).toMatchObject({
    kind: "failed",
    code: "checkpoint-corrupt",
    reason: expect.stringMatching(/checkpoints\/10\/g1-w1.bin: expected \d+ bytes, received \d+/),
  });
  expect(existsSync(join(runDir, "checkpoints", "4", "manifest.json"))).toBe(false);
});

test("a corrupted manifest is found before a run is resumed from it", async () => {
  const runDir = await cluster.folder();
  const spec = exampleSpec({ fleet: { workers: 1 } });
  const first = await cluster.start({ runDir, spec });
  cluster.work(first.address, "w0", { beforeStep: (step) => (step === 5 ? "hang" : undefined) });
  const api = cluster.administer(first.address);
  await waitFor(async () => (await api.get({ runId: "" })).checkpointStep === 4);
  await first.close();
  const path = join(runDir, "checkpoints", "4", "manifest.json");
  const manifest = await readFile(path, "utf8");
  await writeFile(path, manifest.replace('"step": 4', '"step": 5'));
  await expect(cluster.start({ runDir, resume: true })).rejects.toMatchObject({
    code: "checkpoint-corrupt",
    message: expect.stringContaining("manifest.json: expected sha256"),
  });
  await writeFile(path, manifest);
  await cluster.start({ runDir, resume: true });
});

test("a used port stops the start and leaves nothing recorded", async () => {
  const { address } = await cluster.start({ spec: exampleSpec() });
  const port = Number(address.split(":")[1]);
  const runDir = await cluster.folder();
  const spec = exampleSpec();
  await expect(cluster.start({ runDir, spec, port })).rejects.toMatchObject({
    code: "port-in-use",
  });
  await expect(cluster.start({ runDir, spec, metricsPort: port })).rejects.toMatchObject({
    code: "port-in-use",
  });
  await cluster.start({ runDir, spec });
});

test("two coordinators never share a run directory", async () => {
  const runDir = await cluster.folder();
  await cluster.start({ runDir, spec: exampleSpec() });
  await expect(cluster.start({ runDir, resume: true })).rejects.toMatchObject({
    code: "already-exists",
    message: expect.stringContaining("ledger.lock"),
  });
});

test("a changed recipe cannot be resumed, a changed fleet can; a missing run is not found", async () => {
  const runDir = await cluster.folder();
  await expect(cluster.start({ runDir, spec: exampleSpec(), resume: true })).rejects.toMatchObject({
    code: "not-found",
  });
  await (await cluster.start({ runDir, spec: exampleSpec() })).close();
  const changed = exampleSpec({ batchPerRank: 3 });
  await expect(cluster.start({ runDir, spec: changed, resume: true })).rejects.toMatchObject({
    code: "invalid-spec",
    message: expect.stringContaining("batchPerRank: expected 2, received 3"),
  });
  const spec = exampleSpec({ fleet: { workers: 4 } });
  await cluster.start({ runDir, spec, resume: true });
});
