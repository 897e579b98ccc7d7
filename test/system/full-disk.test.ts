/** A disk without room, under a real run. */
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { paced } from "../support/fleets-of-tests.js";
import { killAll } from "../support/kill.js";
import {
  paddock,
  readSteps,
  type Started,
  scratch,
  startPaddock,
  until,
  writeTinyRun,
} from "../support/paddock.js";

const folder = scratch();
const small = join(folder.path, "small");
mkdirSync(small);
const isMounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=6m", "tmpfs", small]).status === 0;
let run: Started | undefined;
afterAll(async () => {
  if (run) await killAll(run);
  if (isMounted) spawnSync("umount", ["-l", small]);
  folder.remove();
});

test.skipIf(!isMounted)("a run waits for room on its disk, says so, and goes on", async () => {
  const steps = 40;
  const spec = writeTinyRun(folder.path, { steps, checkpoint: { everySteps: steps } });
  const runDir = join(small, "run");
  const flags = ["--run-dir", runDir, "--workers", "2", "--engine", "wasm", "--json"];
  run = startPaddock(["train", spec, ...flags], undefined, paced);
  await until("10 steps", 60, () => readSteps(runDir).length > 10);
  const filler = join(small, "filler");
  expect(() => writeFileSync(filler, Buffer.alloc(8 * 2 ** 20))).toThrow(/ENOSPC/);
  let why = "";
  for (let tries = 0; tries < 20 && !why.includes("the disk is full"); tries++) {
    why = (await paddock(["why", runDir])).stdout;
  }
  expect(why).toMatch(/expected to append to .*received ENOSPC.*make room there/);
  const before = readSteps(runDir).length;
  rmSync(filler);
  const { code, stderr } = await run.done;
  expect(code, stderr).toBe(0);
  const records = readSteps(runDir);
  expect(before).toBeLessThan(steps);
  expect(records.map(({ step }) => step)).toEqual([...Array(steps).keys()]);
  expect(new Set(records.map(({ generation }) => generation)).size).toBe(1);
});
