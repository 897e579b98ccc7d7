/** The same run as real processes: what the worker's own process holds, with its connections, messages and metrics. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { RunSpecInput } from "@paddock/contract";
import { startPaddock, writeTinyRun } from "../support/paddock.js";
import { startTestRedis } from "../support/redis.js";

export interface WorkerMemory {
  /** Committed steps by then. */
  readonly step: number;
  readonly residentMiB: number;
}

/** Trains for `steps` steps with `paddock train` and one worker; resolves with its worker's memory, several times a second. */
export async function trainFleet(folder: string, steps: number): Promise<WorkerMemory[]> {
  const redis = await startTestRedis(folder);
  const runDir = join(folder, "run");
  const changes: Partial<RunSpecInput> = { steps, checkpoint: { everySteps: steps } };
  const started = startPaddock([
    ...["train", writeTinyRun(folder, changes), "--run-dir", runDir, "--workers", "1"],
    ...["--redis", redis.url, "--engine", "torch"],
  ]);
  const samples: WorkerMemory[] = [];
  const timer = setInterval(() => {
    const residentMiB = workerMiB(started.process.pid);
    const step = linesOf(join(runDir, "steps.jsonl"));
    if (residentMiB !== undefined && step > 0) samples.push({ step, residentMiB });
  }, 200);
  try {
    const { code, stderr } = await started.done;
    if (code !== 0) throw new Error(`the run ended with code ${code}: ${stderr}`);
  } finally {
    clearInterval(timer);
    await redis.stop();
  }
  return samples;
}

/** Resident memory of the worker among the descendants of `root`. */
function workerMiB(root: number | undefined): number | undefined {
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const [command, status] = ["cmdline", "status"].map((file) => read(`/proc/${entry}/${file}`));
    if (!command?.includes("worker/dist/main.js")) continue;
    if (Number(/^PPid:\s+(\d+)$/m.exec(status ?? "")?.[1]) !== root) continue;
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status ?? "")?.[1]) / 1024;
  }
  return undefined;
}

function linesOf(file: string): number {
  return (read(file) ?? "").split("\n").length - 1;
}

/** Undefined for what is not there (any more). */
function read(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
