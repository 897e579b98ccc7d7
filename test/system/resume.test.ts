/** Kill everything at a random moment, resume with another number of workers: the losses go on as if nothing had happened. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { killAll } from "../support/kill.js";
import {
  paddock,
  readSteps,
  scratch,
  startPaddock,
  trajectory,
  until,
  writeTinyRun,
} from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

const steps = 30;
let undisturbed: string[] = [];

beforeAll(async () => {
  const runDir = join(folder.path, "undisturbed");
  const spec = writeTinyRun(folder.path, { steps, exchange: { dtype: "fp16", initialScale: 256 } });
  const { code, stderr } = await paddock(["train", spec, "--run-dir", runDir, "--workers", "2"]);
  expect(code, stderr).toBe(0);
  undisturbed = trajectory(runDir);
  expect(undisturbed).toHaveLength(steps);
});

test.each([1, 2, 3])(
  "a SIGKILL to all processes at a random moment loses nothing (%i)",
  async (round) => {
    const runDir = join(folder.path, `killed-${round}`);
    const spec = writeTinyRun(folder.path, {
      steps,
      exchange: { dtype: "fp16", initialScale: 256 },
    });
    const workers = [2, 1, 3][round - 1] as number;
    const started = startPaddock([
      "train",
      spec,
      "--run-dir",
      runDir,
      "--workers",
      String(workers),
    ]);
    const killAfter = 1 + Math.floor(Math.random() * (steps - 3));
    await until(`step ${killAfter}`, 60, () => readSteps(runDir).length >= killAfter);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 100));
    await killAll(started);
    const before = readSteps(runDir).length;

    const resumed = [1, 3, 2][round - 1] as number;
    const { code, stderr, stdout } = await paddock([
      "train",
      spec,
      "--run-dir",
      runDir,
      "--resume",
      "--workers",
      String(resumed),
    ]);
    expect(code, `killed at ${before}\n${stdout}\n${stderr}`).toBe(0);
    expect(trajectory(runDir), `killed after ${before} steps`).toEqual(undisturbed);
  },
);

test("SIGINT drains: the step is finished, a checkpoint written, exit code 130; resume continues exactly", async () => {
  const runDir = join(folder.path, "drained");
  const spec = writeTinyRun(folder.path, {
    steps,
    exchange: { dtype: "fp16", initialScale: 256 },
    checkpoint: { everySteps: 1000 },
  });
  const started = startPaddock(["train", spec, "--run-dir", runDir, "--workers", "2"]);
  await until("step 7", 60, () => readSteps(runDir).length >= 7);
  started.process.kill("SIGINT");
  const { code, stderr } = await started.done;
  expect(code, stderr).toBe(130);
  const committed = readSteps(runDir).length;
  expect(committed).toBeLessThan(steps);
  expect(readdirSync(join(runDir, "checkpoints"))).toEqual([String(committed)]);
  expect(existsSync(join(runDir, "checkpoints", String(committed), "manifest.json"))).toBe(true);

  const resumed = await paddock(["train", spec, "--run-dir", runDir, "--resume", "--workers", "3"]);
  expect(resumed.code, resumed.stderr).toBe(0);
  expect(trajectory(runDir)).toEqual(undisturbed);
});

test("resuming a finished run is a no-op with exit code 0", async () => {
  const runDir = join(folder.path, "undisturbed");
  const { code, stderr } = await paddock(["resume", runDir]);
  expect(code, stderr).toBe(0);
  expect(trajectory(runDir)).toEqual(undisturbed);
});
