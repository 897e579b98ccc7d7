/** `paddock train`, `coordinator` and `resume`: three ways to start one run. */
import { join, resolve } from "node:path";
import { PaddockError, type RunSpec } from "@paddock/contract";
import type { Io } from "../io.js";
import { executeRun, type RunFlags } from "../run/execute-run.js";
import { newestRunDir, newRunDir, readJson, readRunSpec } from "../run/run-directory.js";
import { loadPlan, loadSpec } from "../spec/load-spec.js";
import { type Override, parseOverride } from "../spec/overrides.js";
import { executeStages, holdsStages } from "../stages/run-stages.js";

interface SpecFlags extends RunFlags {
  readonly spec: string;
  readonly overrides: readonly string[];
  readonly runDir?: string;
  readonly resume?: boolean;
}

export interface TrainFlags extends SpecFlags {
  readonly workers?: number;
  readonly steps?: number;
  readonly seed?: number;
  readonly engine?: string;
  readonly exchangeDtype?: string;
  readonly data?: string;
}

/** Everything on this machine. Returns the exit code. */
export async function trainCommand(flags: TrainFlags, io: Io): Promise<number> {
  const overrides = allOverrides(flags, flagOverrides(flags, io.cwd));
  const plan = await loadPlan(resolve(io.cwd, flags.spec), overrides);
  const resume = flags.resume === true;
  if ("stages" in plan) {
    const runDir = await runDirOf(flags.runDir, resume, plan.name, io.cwd);
    return executeStages({ runDir, source: plan.stages, resume, flags }, io);
  }
  const runDir = await runDirOf(flags.runDir, resume, plan.spec.name, io.cwd);
  const started = { runDir, spec: plan.spec, resume };
  return executeRun(
    { ...started, flags, host: "127.0.0.1", localWorkers: started.spec.fleet.workers },
    io,
  );
}

export interface CoordinatorFlags extends SpecFlags {
  readonly host: string;
}

/** Only the coordinator. Returns the exit code. */
export async function coordinatorCommand(flags: CoordinatorFlags, io: Io): Promise<number> {
  const spec = await loadSpec(resolve(io.cwd, flags.spec), allOverrides(flags, []));
  const resume = flags.resume === true;
  const runDir = await runDirOf(flags.runDir, resume, spec.name, io.cwd);
  const started = { runDir, spec, resume };
  return executeRun({ ...started, flags, host: flags.host, localWorkers: 0 }, io);
}

export interface ResumeFlags extends RunFlags {
  readonly runDir: string;
  readonly workers?: number;
}

/** Continues a run with the spec that it was started with. Returns the exit code. */
export async function resumeCommand(flags: ResumeFlags, io: Io): Promise<number> {
  const runDir = resolve(io.cwd, flags.runDir);
  if (holdsStages(runDir)) {
    const source = await readJson(join(runDir, "stages.json"));
    return executeStages({ runDir, source, resume: true, flags, workers: flags.workers }, io);
  }
  const saved = await readRunSpec(runDir);
  const spec = withWorkers(saved, flags.workers);
  return executeRun(
    { runDir, spec, resume: true, flags, host: "127.0.0.1", localWorkers: spec.fleet.workers },
    io,
  );
}

function allOverrides(flags: SpecFlags, fromFlags: readonly Override[]): Override[] {
  return [...fromFlags, ...flags.overrides.map(parseOverride)];
}

async function runDirOf(
  named: string | undefined,
  resume: boolean,
  name: string,
  cwd: string,
): Promise<string> {
  if (named !== undefined) return resolve(cwd, named);
  return resume ? newestRunDir(cwd, name) : newRunDir(cwd, name, new Date());
}

/** The fields of the spec that flags stand for. */
function flagOverrides(flags: TrainFlags, cwd: string): Override[] {
  const fields: [string, unknown][] = [
    ["fleet.workers", flags.workers],
    ["steps", flags.steps],
    ["seed", flags.seed],
    ["engine.name", flags.engine],
    ["exchange.dtype", flags.exchangeDtype],
    ["data.path", flags.data === undefined ? undefined : resolve(cwd, flags.data)],
  ];
  return fields
    .filter(([, value]) => value !== undefined)
    .map(([path, value]) => ({ path: path.split("."), value }));
}

function withWorkers(spec: RunSpec, workers: number | undefined): RunSpec {
  if (workers === undefined) return spec;
  if (workers > spec.logicalRanks) {
    throw new PaddockError(
      "invalid-argument",
      `expected at most logicalRanks = ${spec.logicalRanks} workers, received ${workers}`,
    );
  }
  return { ...spec, fleet: { ...spec.fleet, workers } };
}
