import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRunSpec, type RunSpecInput } from "@paddock/contract";
import { allocateState } from "@paddock/worker";
import { afterEach, beforeEach, expect, test } from "vitest";
import { checkMemory } from "../doctor/checks.js";
import { paddockIn } from "../testing/run-cli.js";
import { planOf, type RunPlan } from "./plan.js";

const small: RunSpecInput = {
  name: "small",
  steps: 101,
  logicalRanks: 4,
  batchPerRank: 8,
  model: { arch: "tiny", patchSize: 16 },
  data: { kind: "folder", path: "images" },
  fleet: { workers: 2, segmentSteps: 25 },
  checkpoint: { everySteps: 50, keep: 2 },
};

const planned = (changes: Partial<RunSpecInput> = {}, workers = 2, images: number | null = null) =>
  planOf(parseRunSpec({ ...small, ...changes }), { workers, images });

test("steps, samples, epochs, segments and checkpoints are counted, the unfinished last ones too", () => {
  expect(planned({}, 2, 1000)).toMatchObject({
    globalBatch: 32,
    samples: 3232,
    epochs: 3.232,
    segments: 5,
    checkpoints: 3,
    evaluations: 0, // no labelled images to validate with
    warnings: [],
    spares: 0,
  });
  expect(planned().epochs).toBeNull();
});

test("every worker's bytes are those of its allocated shards, and a checkpoint is all of them", () => {
  const spec = parseRunSpec(small);
  const plan = planOf(spec, { workers: 3, images: null });
  const sizes = plan.workers.map(({ worker }) => {
    const state = allocateState(spec, { generation: 1, worker, workers: 3 });
    return Object.fromEntries(
      Object.entries(state).map(([kind, units]) => [
        kind,
        Object.values(units).reduce((sum, shard) => sum + shard.byteLength, 0),
      ]),
    );
  });
  expect(plan.workers.map(({ stateBytes }) => stateBytes)).toEqual(sizes);
  const all = sizes.flatMap((size) => Object.values(size)).reduce((a, b) => a + b);
  expect(plan.checkpointBytes).toBe(all);
  expect(plan.diskBytes).toBe(3 * all);
  // 16 bytes a parameter, and what pads units to multiples of 16 values.
  expect(all / (16 * plan.parameters)).toBeCloseTo(1, 3);
});

test("shadows count only where they are kept, and their price is told where not", () => {
  const [none, shadow] = [planned(), planned({ fleet: { redundancy: "shadow" } })];
  for (const [i, worker] of shadow.workers.entries()) {
    const without = none.workers[i] as RunPlan["workers"][number];
    expect(worker.shadowBytes).toBe(without.shadowBytes);
    expect(worker.memoryBytes - without.memoryBytes).toBeGreaterThanOrEqual(worker.shadowBytes);
    expect(worker.sentBytes - without.sentBytes).toBe(2 * worker.shardElements);
  }
});

test("workers without ranks, and ranks that cannot be dealt equally, are warned about", () => {
  const six = planned({}, 6);
  expect(six.workers).toHaveLength(4);
  expect(six.spares).toBe(2);
  expect(six.warnings).toEqual([
    expect.stringMatching(/^6 workers for 4 logical ranks: 2 have nothing to compute/),
  ]);
  expect(planned({}, 3).warnings).toEqual([
    expect.stringMatching(/do not divide 4 logical ranks: .* idle for 33 % .*; 2 or 4 workers/),
  ]);
  expect(planned({ fleet: { redundancy: "shadow" } }, 1).warnings).toHaveLength(1);
});

test("the doctor says whether the memory fits, and how many workers would", async () => {
  const plan = planned();
  const most = Math.max(...plan.workers.map(({ memoryBytes }) => memoryBytes));
  expect((await checkMemory(plan, 3 * most)).advice).toBeUndefined();
  expect((await checkMemory(plan, 1.5 * most)).advice).toContain("at most 1 of them");
  expect((await checkMemory(plan, 0.5 * most)).advice).toContain("nor does one of its workers");
});

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "paddock-plan-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const paddock = (...argv: string[]) => paddockIn(dir, argv);

test("plan prints a spec's plan as text and as JSON, with overrides, and starts nothing", async () => {
  await writeFile(join(dir, "run.json"), JSON.stringify(small));
  const text = await paddock("plan", "run.json", "--workers", "6", "steps=7");
  expect(text.code).toBe(0);
  expect(text.out).toMatch(/^small: 7 steps of 32 images \(224 samples; --images N gives epochs\)/);
  expect(text.out).toContain("on 4 workers and 2 spares");
  expect(text.out).toMatch(/warning: 6 workers for 4 logical ranks/);
  expect(text.out).toMatch(/not estimated: memory: activations/);
  const json = await paddock("plan", "run.json", "--images", "1000", "--json");
  const { plans } = JSON.parse(json.out) as { plans: RunPlan[] };
  expect(plans).toEqual([planned({}, 2, 1000)]);
});

test("a spec with stages has one plan per stage; what is wrong with a spec is exit code 2", async () => {
  const stages = [
    { name: "first" },
    { name: "second", init: { load: "resume" }, loss: { gram: {} }, steps: 202 },
  ];
  await writeFile(join(dir, "staged.json"), JSON.stringify({ ...small, stages }));
  const { code, out } = await paddock("plan", "staged.json", "--json");
  expect(code).toBe(0);
  const { plans } = JSON.parse(out) as { plans: RunPlan[] };
  expect(plans.map(({ name, steps }) => [name, steps])).toEqual([
    ["small-first", 101],
    ["small-second", 202],
  ]);
  expect(plans.map(({ workers }) => (workers[0]?.stateBytes.frozen ?? 0) > 0)).toEqual([
    false,
    true,
  ]);
  expect(plans[1]?.warnings).toEqual([expect.stringMatching(/^init\.load=resume/)]);
  await writeFile(join(dir, "wrong.json"), JSON.stringify({ ...small, batchPerRank: 0 }));
  expect(await paddock("plan", "wrong.json")).toMatchObject({
    code: 2,
    err: expect.stringContaining("batchPerRank"),
  });
  expect(await paddock("plan", "nowhere.json")).toMatchObject({ code: 2 });
  expect((await paddock("plan", "--help")).out).toContain("Examples:");
});

test("doctor --spec compares a run's memory with this machine's", async () => {
  await writeFile(join(dir, "run.json"), JSON.stringify(small));
  const flags = ["--json", "--redis", "redis://127.0.0.1:1", "--spec", "run.json"];
  const { out } = await paddock("doctor", ...flags, "--workers", "3");
  const { findings } = JSON.parse(out) as {
    findings: { name: string; ok: boolean; detail: string }[];
  };
  const memory = findings.find(({ name }) => name === "memory");
  expect(memory?.ok).toBe(true);
  expect(memory?.detail).toMatch(
    /^small: .* for 3 workers \(at most .* each\) without activations/,
  );
});
