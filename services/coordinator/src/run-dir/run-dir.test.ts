import { appendFile, mkdir, readdir, readFile, rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { layoutOf, type Manifest, type StepRecord, stepParts } from "@paddock/contract";
import { writeDurably } from "@paddock/service-kit";
import { afterEach, expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { Cleanup } from "../testing/temporary.js";
import { openCheckpoints } from "./checkpoints.js";
import { checkResumedSpec } from "./resumed-spec.js";
import { openStepsFile } from "./steps-file.js";

const after = new Cleanup();
afterEach(() => after.run());

function stepRecord(step: number, loss = step / 3): StepRecord {
  return {
    step,
    generation: 1,
    workers: 1,
    loss,
    losses: { dinoLocal: 1, dinoGlobal: 1, koleo: 1, ibot: 1, gram: 0 },
    gradNorm: {},
    lr: 1e-300,
    weightDecay: 0.04,
    momentum: 0.992,
    teacherTemp: 0.04,
    lossScale: 1,
    skipped: false,
    images: 8,
    seconds: Object.fromEntries(stepParts.map((part) => [part, 0])) as StepRecord["seconds"],
    unixMs: 1,
  };
}

async function manifestIn(folder: string, step: number): Promise<Manifest> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "a.bin"), "abc");
  const layout = layoutOf(exampleSpec());
  return {
    format: "paddock-checkpoint",
    version: 1,
    runId: "r",
    step,
    generation: 1,
    workers: 1,
    logicalRanks: 4,
    parameters: layout.parameters,
    units: [],
    files: [{ name: "a.bin", bytes: 3, sha256: "", worker: 0 }],
    scaler: { scale: 1, goodSteps: 0 },
    cursor: 8,
  };
}

test("steps are truncated to a step, torn lines go, and the ends are what is left", async () => {
  const path = join(await after.folder(), "steps.jsonl");
  const file = await openStepsFile(path);
  after.add(() => file.close());
  expect(await file.ends()).toBeUndefined();
  for (let step = 0; step < 5; step++) await file.write(stepRecord(step));
  await file.sync();
  await appendFile(path, '{"step": 5, "lo');
  expect(await file.truncate(3)).toBe(3);
  expect(await file.ends()).toEqual({ first: stepRecord(0), last: stepRecord(2) });
  await file.write(stepRecord(3, Number.NaN));
  const lines = (await readFile(path, "utf8")).split("\n");
  expect(lines.length).toBe(5);
  expect(JSON.parse(lines[3] as string)).toMatchObject({ step: 3, loss: null });
  expect(await file.truncate(0)).toBe(0);
  expect(await readFile(path, "utf8")).toBe("");
});

test("a damaged line of steps.jsonl and what follows it go: the file is no truth to insist on", async () => {
  const path = join(await after.folder(), "steps.jsonl");
  await writeFile(
    path,
    `${JSON.stringify(stepRecord(0))}\n{"step":\n${JSON.stringify(stepRecord(2))}\n`,
  );
  const file = await openStepsFile(path);
  after.add(() => file.close());
  expect(await file.truncate(3)).toBe(1);
  expect(await file.ends()).toEqual({ first: stepRecord(0), last: stepRecord(0) });
});

test("a checkpoint is committed when its files are there, and found corrupt when they change", async () => {
  const checkpoints = openCheckpoints(join(await after.folder(), "checkpoints"));
  const folder = checkpoints.pathOf(4);
  const manifest = await manifestIn(folder, 4);
  const sha256 = await checkpoints.commit(manifest);
  expect(await readdir(folder)).toEqual(["a.bin", "manifest.json"]);
  await checkpoints.verify(4, sha256);
  await expect(checkpoints.verify(4, "0".repeat(64))).rejects.toMatchObject({
    code: "checkpoint-corrupt",
  });
  await appendFile(join(folder, "a.bin"), "d");
  await expect(checkpoints.verify(4, sha256)).rejects.toThrow(
    /a.bin: expected 3 bytes, received 4/,
  );
  await expect(checkpoints.verify(5, sha256)).rejects.toThrow(
    /expected a manifest, received no file/,
  );
});

test("a manifest never names a file outside its folder", async () => {
  const checkpoints = openCheckpoints(join(await after.folder(), "checkpoints"));
  const manifest = await manifestIn(checkpoints.pathOf(4), 4);
  const files = [{ name: "../a.bin", bytes: 3, sha256: "", worker: 0 }];
  await expect(checkpoints.commit({ ...manifest, files })).rejects.toMatchObject({
    code: "checkpoint-corrupt",
  });
  // Nor one that leads there.
  const file = join(checkpoints.pathOf(4), "a.bin");
  const elsewhere = join(await after.folder(), "a.bin");
  await rename(file, elsewhere);
  await symlink(elsewhere, file);
  await expect(checkpoints.commit(manifest)).rejects.toThrow(/a.bin: expected a file/);
});

test("only the checkpoints to keep are kept, and nothing else is touched", async () => {
  const runDir = await after.folder();
  const checkpoints = openCheckpoints(join(runDir, "checkpoints"));
  for (const step of [2, 4, 6]) await manifestIn(checkpoints.pathOf(step), step);
  await writeFile(join(runDir, "checkpoints", "notes.txt"), "mine");
  await checkpoints.keep([4, 8]);
  expect(await readdir(join(runDir, "checkpoints"))).toEqual(["4", "notes.txt"]);
});

test("a file is replaced as a whole, or the reason is given", async () => {
  const folder = await after.folder();
  await writeDurably(join(folder, "a.json"), "1");
  await writeDurably(join(folder, "a.json"), "2");
  expect(await readFile(join(folder, "a.json"), "utf8")).toBe("2");
  expect(await readdir(folder)).toEqual(["a.json"]);
  await expect(writeDurably(join(folder, "none", "a.json"), "1")).rejects.toMatchObject({
    code: "disk-unavailable",
  });
});

test("a resumed spec may change what does not touch the numbers, and says what touches their bits", () => {
  const recorded = exampleSpec();
  expect(checkResumedSpec(recorded, recorded)).toEqual([]);
  const moved = exampleSpec({
    fleet: { workers: 4 },
    checkpoint: { everySteps: 1 },
    guards: { rollbackAfter: 5 },
    data: { kind: "idx", path: "/elsewhere" },
    engine: { threads: 2 },
  });
  expect(checkResumedSpec(recorded, moved)).toEqual(["engine.threads"]);
  const elsewhere = exampleSpec({ checkpoint: { storage: "s3://bucket/a" } });
  expect(() => checkResumedSpec(recorded, elsewhere)).toThrow(
    /checkpoint.storage: expected null, received "s3:/,
  );
  const other = exampleSpec({ seed: 1, exchange: { dtype: "fp16" } });
  expect(() => checkResumedSpec(recorded, other)).toThrow(
    /seed: expected 0, received 1\n {2}exchange.dtype: expected "fp32", received "fp16"/,
  );
});
