/** What people and scripts see of a run: JSON lines, status, evaluation, report, signals, nothing left behind. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { writeIdxImages } from "../support/images.js";
import {
  cliFile,
  paddock,
  printed,
  readSteps,
  scratch,
  startPaddock,
  tinySpec,
  until,
} from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);
const images = join(folder.path, "images");
writeIdxImages(images, 64, 32);
const runDir = join(folder.path, "run");
const steps = 8;

interface Event {
  readonly event: string;
  readonly step?: number;
  readonly knn?: number;
  readonly summary?: { readonly knn: { readonly end: number } };
}

/** The specs of this file are TypeScript modules, one importing the other. */
function writeSpec(): string {
  const spec = tinySpec(images, {
    steps,
    evaluation: { everySteps: 4, k: 5, bank: 64, queries: 32 },
  });
  writeFileSync(
    join(folder.path, "base.ts"),
    `import type { RunSpecInput } from "@paddock/contract";
     export const base = (name: string): RunSpecInput => ({ ...${JSON.stringify(spec)}, name });`,
  );
  const file = join(folder.path, "spec.ts");
  writeFileSync(
    file,
    `import { base } from "./base.js";
     export default () => base("typed");`,
  );
  return file;
}

/** Processes that still have their working directory or their arguments in `dir`. */
function processesIn(dir: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      } catch {
        return "";
      }
    })
    .filter((line) => line.includes(dir));
}

test("--json prints one object per committed step and event, and nothing else", async () => {
  const { code, stdout, stderr } = await paddock([
    ...["train", writeSpec(), "--json", "--run-dir", runDir, "--workers", "2", "seed=3"],
  ]);
  expect(code, stderr).toBe(0);
  const events = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Event);
  const committed = events.filter(({ event }) => event === "step");
  expect(committed.map(({ event: _, ...record }) => record)).toEqual(readSteps(runDir));
  expect(committed).toHaveLength(steps);
  expect(events.filter(({ event }) => event === "evaluation").map(({ step }) => step)).toEqual([
    0, 4, 8,
  ]);
  expect(events[0]?.event).toBe("started");
  expect(events.at(-1)?.event).toBe("result");
  const spec = JSON.parse(readFileSync(join(runDir, "spec.json"), "utf8")) as object;
  expect(spec).toMatchObject({ name: "typed", seed: 3 });
});

test("status and report of a finished run come from its files", async () => {
  const status = await printed(["status", runDir, "--json"]);
  expect(JSON.parse(status)).toMatchObject({ phase: "finished", step: steps, steps });
  const report = await printed(["report", runDir]);
  expect(report.trim()).toBe(join(runDir, "report.html"));
  const html = readFileSync(join(runDir, "report.html"), "utf8");
  expect(html).toContain("What the teacher sees");
  expect(html).not.toContain("NaN");
});

test("eval knn measures the checkpoint as the run did, with one worker", async () => {
  const { code, stdout, stderr } = await paddock(["eval", "knn", runDir, "--json"]);
  expect(code, stderr).toBe(0);
  const { knn, ...rest } = JSON.parse(stdout) as { knn: number };
  expect(rest).toMatchObject({ step: steps, bank: 64, queries: 32, k: 5 });
  const summary = JSON.parse(readFileSync(join(runDir, "summary.json"), "utf8"));
  expect(knn).toBe(summary.knn.end);
});

test("a slow reader of a long answer gets all of it", () => {
  const command = `"$0" "$1" plan "$2" logicalRanks=1024 --workers 1024 --json | (sleep 2; cat)`;
  const args = [process.execPath, cliFile, writeSpec()];
  const { stdout } = spawnSync("sh", ["-c", command, ...args], { maxBuffer: 2 ** 24 });
  // More than the 64 KiB that a pipe holds.
  expect(stdout.length).toBeGreaterThan(100_000);
  expect(JSON.parse(stdout.toString())).toHaveProperty("plans");
});

test("a live run answers status, takes copies of one Ctrl-C for one, and leaves no process behind", async () => {
  const live = join(folder.path, "live");
  const started = startPaddock([
    ...["train", writeSpec(), "--run-dir", live, "--steps", "100000", "evaluation.everySteps=0"],
  ]);
  await until("step 3", 90, () => readSteps(live).length >= 3);
  const status = await printed(["status", live, "--json"]);
  const run = JSON.parse(status) as { workers: { pid: number }[] };
  expect(run).toMatchObject({ phase: "running", steps: 100000 });
  expect(run.workers).toHaveLength(2);

  for (const signal of ["SIGINT", "SIGINT", "SIGTERM"] as const) started.process.kill(signal);
  const { code, stdout } = await started.done;
  expect(code).toBe(130);
  expect(stdout).toContain("after a clean drain");
  for (const { pid } of run.workers) expect(() => process.kill(pid, 0)).toThrow();
  await until("its Redis to be gone", 5, () => processesIn(live).length === 0);
});

test("nothing is left behind either when the command is killed", async () => {
  const live = join(folder.path, "killed");
  const started = startPaddock([
    ...["train", writeSpec(), "--run-dir", live, "--steps", "100000", "evaluation.everySteps=0"],
  ]);
  await until("step 3", 90, () => readSteps(live).length >= 3);
  const status = await printed(["status", live, "--json"]);
  const { workers } = JSON.parse(status) as { workers: { pid: number }[] };
  expect(processesIn(live).length).toBeGreaterThan(0);
  started.process.kill("SIGKILL");
  await started.done;
  await until("its workers and its Redis to be gone", 20, () => {
    const living = workers.filter(({ pid }) => readableCommand(pid) !== "");
    return living.length === 0 && processesIn(live).length === 0;
  });
});

function readableCommand(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

test("a killed `paddock worker` takes the process that it started with it", async () => {
  const worker = startPaddock([
    ...["worker", "--coordinator", "127.0.0.1:1", "--name", "orphan-to-be", "--engine", "wasm"],
  ]);
  const living = (): string[] => processesIn("--name orphan-to-be");
  await until("it looks for its coordinator", 30, () => /127\.0\.0\.1:1\b/.test(worker.output()));
  expect(living()).toHaveLength(2);
  worker.process.kill("SIGKILL");
  await until("both to be gone", 10, () => living().length === 0);
});
