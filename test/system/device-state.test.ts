/**
 * State in the engine's library, as on a GPU, in a real fleet: what a checkpoint holds is what was there, and a run resumed from
 * it, by another number of workers, goes on to the last bit. On a CPU, whose libtorch keeps vectors the same way.
 */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
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
const steps = 16;

beforeAll(() => {
  vi.stubEnv("PADDOCK_VECTORS", "library"); // fleets inherit it
});

afterAll(() => {
  vi.unstubAllEnvs();
  folder.remove();
});

function specFile(): string {
  return writeTinyRun(folder.path, {
    steps,
    engine: { name: "torch" },
    exchange: { dtype: "fp16", initialScale: 256 },
    checkpoint: { everySteps: 100 }, // none but the drain's
  });
}

test("a drained run resumes exactly, with another number of workers", async () => {
  const whole = join(folder.path, "whole");
  const spec = specFile();
  const undisturbed = await paddock(["train", spec, "--run-dir", whole, "--workers", "1"]);
  if (undisturbed.code === 3) return; // no torch here: the other engines have no such vectors
  expect(undisturbed.code, undisturbed.stderr).toBe(0);

  const runDir = join(folder.path, "drained");
  const started = startPaddock(["train", spec, "--run-dir", runDir, "--workers", "3"]);
  await until("step 5", 60, () => readSteps(runDir).length >= 5);
  started.process.kill("SIGINT");
  expect((await started.done).code).toBe(130);
  const done = readSteps(runDir).length;
  expect(done).toBeLessThan(steps);
  const { code, stderr } = await paddock(["resume", runDir, "--workers", "2"]);
  expect(code, stderr).toBe(0);
  expect(trajectory(runDir)).toEqual(trajectory(whole));
});
