/** Runs the real command line in real processes, the way a user does. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env } from "node:process";
import { fileURLToPath } from "node:url";
import type { RunSpecInput, StepRecord } from "@paddock/contract";
import { writeIdxImages } from "./images.js";

/** The command's file, from here or from where this is compiled to. */
export const cliFile = ["../../", "../../../"]
  .map((up) => fileURLToPath(new URL(`${up}services/cli/bin/paddock.mjs`, import.meta.url)))
  .find(existsSync) as string;

export interface Finished {
  /** null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Started {
  readonly process: ChildProcess;
  readonly done: Promise<Finished>;
  /** Everything printed so far. */
  readonly output: () => string;
}

/** A folder that lives as long as one test file. */
export interface Scratch {
  readonly path: string;
  readonly remove: () => void;
}

export function scratch(): Scratch {
  const path = mkdtempSync(join(tmpdir(), "paddock-test-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Starts `paddock ...` in its own process group, so that `killGroup` reaches every process of the run. */
export function startPaddock(
  args: readonly string[],
  cli = cliFile,
  environment: NodeJS.ProcessEnv = {},
): Started {
  const child = spawn(process.execPath, [cli, ...args], {
    detached: true,
    env: { ...env, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (data: Buffer) => {
    stdout += data.toString();
  });
  child.stderr.on("data", (data: Buffer) => {
    stderr += data.toString();
  });
  const done = new Promise<Finished>((resolve) => {
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  return { process: child, done, output: () => stdout + stderr };
}

export function paddock(
  args: readonly string[],
  cli = cliFile,
  environment: NodeJS.ProcessEnv = {},
): Promise<Finished> {
  return startPaddock(args, cli, environment).done;
}

/** What a command prints on stdout; an error that holds everything when it ends otherwise than expected. */
export async function printed(args: readonly string[], expected = 0): Promise<string> {
  const { code, signal, stdout, stderr } = await paddock(args);
  if (code === expected) return stdout;
  throw new Error(`paddock ${args.join(" ")}: exit ${code ?? signal}\n${stderr}${stdout}`);
}

/** A run small enough for seconds on any engine: 1 grey channel, 4 logical ranks, every loss switched on. */
export function tinySpec(dataPath: string, changes: Partial<RunSpecInput> = {}): RunSpecInput {
  return {
    name: "tiny",
    steps: 20,
    logicalRanks: 4,
    batchPerRank: 2,
    model: {
      width: 32,
      depth: 2,
      heads: 2,
      patchSize: 7,
      channels: 1,
      layerScale: 0.1,
      dropPathRate: 0.3,
    },
    heads: { dino: { prototypes: 64, bottleneck: 16, hidden: 32, layers: 2 } },
    data: { kind: "idx", path: dataPath },
    crops: {
      global: { size: 28, scale: [0.4, 1] },
      local: { size: 14, scale: [0.1, 0.4] },
      localCount: 2,
      mean: [0.3],
      std: [0.3],
    },
    schedules: { learningRate: { peak: 1e-3, warmupSteps: 5 }, freezeLastLayerSteps: 3 },
    exchange: { dtype: "fp32", initialScale: 256 },
    evaluation: { everySteps: 0 },
    checkpoint: { everySteps: 5 },
    ...changes,
  };
}

/** Writes images and a spec file into `directory`; returns the spec's path. */
export function writeTinyRun(directory: string, changes: Partial<RunSpecInput> = {}): string {
  const images = join(directory, "images");
  if (!existsSync(images)) writeIdxImages(images, 64, 32);
  const path = join(directory, `spec-${Math.random().toString(36).slice(2)}.json`);
  writeFileSync(path, JSON.stringify(tinySpec(images, changes)));
  return path;
}

/** The committed steps of a run. */
export function readSteps(runDir: string): StepRecord[] {
  const path = join(runDir, "steps.jsonl");
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line.endsWith("}"))
    .map((line) => JSON.parse(line) as StepRecord);
}

/** What must not depend on workers, kills and resumes: exact values as text. */
export function trajectory(runDir: string): string[] {
  return readSteps(runDir).map(({ step, loss, losses, gradNorm, skipped, lossScale }) =>
    JSON.stringify({ step, loss, losses, gradNorm, skipped, lossScale }),
  );
}

/** Waits until `check` holds, looking every 20 ms; fails after `seconds`, saying what was waited for. */
export async function until(what: string, seconds: number, check: () => boolean): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!check()) {
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
