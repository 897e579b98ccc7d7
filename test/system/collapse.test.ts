/** Collapse on purpose: real runs of the demo's configuration on its images, called by name within 50 steps; healthy ones are not. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LedgerRecord } from "@paddock/contract";
import { findFashionMnist } from "@paddock/data";
import { afterAll, expect, test } from "vitest";
import { writeIdxImages } from "../support/images.js";
import { paddock, printed, readSteps, scratch } from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

const demo = new URL("../../deploy/runs/fashion-mnist.yaml", import.meta.url).pathname;
const images = findFashionMnist() ?? writeIdxImages(join(folder.path, "images"), 4000, 100);

const noCentre = ["loss.centering=softmax", "loss.centerMomentum=0.999999"];
const tooHot = ["schedules.teacherTemperature.start=1", "schedules.teacherTemperature.peak=1"];

async function train(name: string, steps: number, changes: readonly string[]) {
  const runDir = join(folder.path, name);
  const quick = ["batchPerRank=8", "evaluation.everySteps=0", `data.path=${images}`];
  const args = ["train", demo, "--run-dir", runDir, "--steps", String(steps), "--workers", "1"];
  const end = await paddock([...args, "--json", "monitor.everySteps=5", ...quick, ...changes]);
  const alerts = readFileSync(join(runDir, "ledger.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as LedgerRecord)
    .filter((record) => record.kind === "alert");
  return { ...end, runDir, alerts };
}

test("no centring and a temperature that is too high: stopped within 50 steps as uniform", async () => {
  const { code, alerts, stderr, runDir } = await train("uniform", 50, [
    ...noCentre,
    ...tooHot,
    "monitor.onCollapse=stop",
  ]);
  expect(code, stderr).toBe(4);
  expect(alerts).toMatchObject([{ collapse: "uniform" }]);
  expect(stderr).toContain("uniform collapse");
  expect(stderr).toContain("ln K = 6.238");
  expect(stderr).toContain("schedules.teacherTemperature at most 0.07 (now 1");
  // The step that showed it is the last one.
  expect(readSteps(runDir).at(-1)?.step).toBe(alerts[0]?.step);
  const status = await printed(["status", runDir]);
  expect(status).toContain("warning: uniform collapse");
});

test("no centring at a low temperature: called single-prototype within 50 steps, and goes on", async () => {
  const { code, alerts, stdout, stderr, runDir } = await train("single", 50, noCentre);
  expect(code, stderr).toBe(0);
  expect(alerts).toMatchObject([{ collapse: "single-prototype" }]);
  expect(alerts[0]?.message).toContain("loss.centerMomentum 0.9");
  expect(stdout).toContain('"event":"alert"');
  expect(readFileSync(join(runDir, "report.html"), "utf8")).toContain("single-prototype collapse");
});

test.each([
  ["Sinkhorn", 100, []],
  ["a centre that overshoots at first", 60, ["loss.centering=softmax"]],
])("a healthy run with %s is not called in %i steps", async (name, steps, changes) => {
  const { code, alerts, stderr, runDir } = await train(`healthy ${name}`, steps, [
    ...changes,
    "monitor.onCollapse=stop",
  ]);
  expect(code, stderr).toBe(0);
  expect(alerts).toEqual([]);
  const signs = readSteps(runDir).flatMap(({ monitor }) => monitor ?? []);
  expect(signs).toHaveLength(steps / 5);
  expect(signs.at(-1)?.effectiveRank).toBeGreaterThan(signs[0]?.effectiveRank ?? 0);
});
