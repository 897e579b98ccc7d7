/** Training with exchange.kind=collective: the same trajectory as through Redis, also when a worker dies on the way. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { whyNoGroups } from "@paddock/engine";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  paddock,
  readSteps,
  scratch,
  startPaddock,
  trajectory,
  until,
  writeTinyRun,
} from "../support/paddock.js";

const missing = whyNoGroups();
const folder = scratch();
afterAll(folder.remove);

const steps = 20;
const evaluation = { everySteps: 7, bank: 48, queries: 16 };
const inUse = "collectives: tensors go worker to worker";

/** Arguments of a run in a directory of its own, and that directory. */
function runOf(name: string, dtype: string, kind: string, workers: number, more: object = {}) {
  const runDir = join(folder.path, name);
  const spec = writeTinyRun(folder.path, { steps, evaluation, ...more });
  const fields = [`exchange.kind=${kind}`, `exchange.dtype=${dtype}`];
  return {
    runDir,
    args: ["train", spec, "--run-dir", runDir, "--workers", String(workers), ...fields],
  };
}

async function finished(...run: Parameters<typeof runOf>): Promise<string> {
  const { runDir, args } = runOf(...run);
  const { code, stderr } = await paddock(args);
  expect(code, stderr).toBe(0);
  return runDir;
}

function evaluationsOf(runDir: string): unknown[] {
  return readFileSync(join(runDir, "ledger.jsonl"), "utf8")
    .split("\n")
    .flatMap((line) => /"kind":"evaluation".*?"knn":[^,}]*/.exec(line) ?? []);
}

/** What the workers logged, one string per worker. */
function logsOf(runDir: string): string[] {
  const logs = join(runDir, "logs");
  return readdirSync(logs)
    .filter((name) => name.startsWith("worker-"))
    .map((name) => readFileSync(join(logs, name), "utf8"));
}

describe.skipIf(missing)(`exchange.kind=collective ${missing ?? ""}`, () => {
  const references = new Map<string, string>();
  beforeAll(async () => {
    for (const dtype of ["fp32", "fp16"]) {
      references.set(dtype, await finished(`redis-${dtype}`, dtype, "redis", 2));
    }
  });

  test.each([
    ["fp32", 1],
    ["fp32", 2],
    ["fp32", 3],
    ["fp16", 1],
    ["fp16", 2],
    ["fp16", 3],
  ] as const)(
    "%s on %i worker(s): losses and evaluations as through Redis",
    async (dtype, workers) => {
      const reference = references.get(dtype) as string;
      const runDir = await finished(`${dtype}-${workers}`, dtype, "collective", workers);
      expect(trajectory(runDir)).toHaveLength(steps);
      expect(trajectory(runDir)).toEqual(trajectory(reference));
      expect(evaluationsOf(runDir)).toEqual(evaluationsOf(reference));
      expect(evaluationsOf(runDir).length).toBeGreaterThan(1);
      const connected = logsOf(runDir).filter((log) => log.includes(inUse));
      expect(connected).toHaveLength(workers === 1 ? 0 : workers);
      expect(readdirSync(runDir)).toContain("visuals.json");
    },
  );

  test("a killed worker: the others notice, a new generation goes on from the last checkpoint", async () => {
    const { runDir, args } = runOf("killed", "fp16", "collective", 3, {
      exchange: { initialScale: 256, timeoutSeconds: 250 },
      fleet: { leaseSeconds: 250 },
    });
    const started = startPaddock(args);
    await until("step 8", 60, () => readSteps(runDir).length >= 8);
    const log = readFileSync(join(runDir, "logs", "worker-1.log"), "utf8");
    const pid = Number(/"pid":(\d+)/.exec(log)?.[1]);
    process.kill(pid, "SIGKILL");
    const { code, stderr } = await started.done;
    expect(code, stderr).toBe(0);
    expect(trajectory(runDir)).toEqual(trajectory(references.get("fp16") as string));
    const ledger = readFileSync(join(runDir, "ledger.jsonl"), "utf8");
    expect(ledger.match(/"kind":"generation"/g)?.length).toBeGreaterThan(1);
    // Gloo in the first generation and again in the last one.
    for (const text of logsOf(runDir)) {
      expect(text.split(inUse).length - 1).toBeGreaterThan(1);
      expect(text).not.toContain("no collectives");
    }
  });
});
