/** `paddock train`, `coordinator` and `resume`: three ways to start one run. */
import { join, resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import type { Io } from "../io.js";
import { recipeJson, recipeText, shortRecipeText } from "../official/text.js";
import { executeRun, type RunFlags, type StartedRun } from "../run/execute-run.js";
import { newestRunDir, newRunDir, readJson, readRunSpec } from "../run/run-directory.js";
import { withWorkers } from "../run/with-workers.js";
import { flagOverrides, refuseOfficialFlags, type SpecFieldFlags } from "../spec/flag-overrides.js";
import {
  checkReady,
  loadOfficialRecipe,
  type RecipeFlags,
  withAbsolutePaths,
} from "../spec/load-recipe.js";
import { loadPlan, loadSpec } from "../spec/load-spec.js";
import { type Override, parseOverride } from "../spec/overrides.js";
import { executeStages } from "../stages/run-stages.js";
import { holdsStages } from "../stages/stage-folders.js";

interface SpecFlags extends RunFlags {
  readonly spec: string;
  readonly overrides: readonly string[];
  readonly runDir?: string;
  readonly resume?: boolean;
}

/** Flags of the commands that start a run. */
interface StartFlags extends Omit<SpecFlags, "spec">, RecipeFlags, SpecFieldFlags {
  /** Absent with `config`. */
  readonly spec?: string;
  /** A config file of DINOv2 or DINOv3. */
  readonly config?: string;
  readonly verbose?: boolean;
}

export type TrainFlags = StartFlags;

/** Everything on this machine. Returns the exit code. */
export async function trainCommand(flags: TrainFlags, io: Io): Promise<number> {
  const { config } = flags;
  if (config !== undefined) return execute(await officialStart(flags, config, io), flags, io);
  const overrides = allOverrides(flags, flagOverrides(flags, io.cwd));
  const plan = await loadPlan(resolve(io.cwd, specOf(flags)), overrides);
  const resume = flags.resume === true;
  if ("stages" in plan) {
    const runDir = await runDirOf(flags.runDir, resume, plan.name, io.cwd);
    return executeStages({ runDir, source: plan.stages, resume, flags }, io);
  }
  const runDir = await runDirOf(flags.runDir, resume, plan.spec.name, io.cwd);
  return execute({ runDir, spec: plan.spec, resume }, flags, io);
}

function execute(started: StartedRun, flags: RunFlags, io: Io): Promise<number> {
  return executeRun(
    { ...started, flags, host: "127.0.0.1", localWorkers: started.spec.fleet.workers },
    io,
  );
}

function specOf(flags: StartFlags): string {
  refuseOfficialFlags(flags);
  if (flags.spec !== undefined) return flags.spec;
  throw new PaddockError(
    "invalid-argument",
    "expected a run spec, or --config with a config file of DINOv2 or DINOv3, received neither; examples lie in deploy/runs",
  );
}

/** A run of an official config; its effective recipe is shown, and kept in the run directory. */
async function officialStart(flags: StartFlags, config: string, io: Io): Promise<StartedRun> {
  // With --config the first word is an override too.
  const overrides = [...(flags.spec === undefined ? [] : [flags.spec]), ...flags.overrides];
  const request = { flags, overrides, fromFlags: flagOverrides(flags, io.cwd), cwd: io.cwd };
  const recipe = await loadOfficialRecipe(resolve(io.cwd, config), request);
  checkReady(recipe, config);
  const text = recipeText(recipe);
  if (flags.json !== true) io.out(flags.verbose === true ? text : shortRecipeText(recipe));
  const spec = withAbsolutePaths(recipe.spec, io.cwd);
  const resume = flags.resume === true;
  const runDir = await runDirOf(flags.runDir, resume, spec.name, io.cwd);
  const notes = { "recipe.txt": text, "recipe.json": recipeJson(recipe) };
  return { runDir, spec, resume, notes };
}

export interface CoordinatorFlags extends StartFlags {
  readonly host: string;
}

/** Only the coordinator. Returns the exit code. */
export async function coordinatorCommand(flags: CoordinatorFlags, io: Io): Promise<number> {
  const { config } = flags;
  const started =
    config === undefined ? await specStart(flags, io) : await officialStart(flags, config, io);
  return executeRun({ ...started, flags, host: flags.host, localWorkers: 0 }, io);
}

async function specStart(flags: CoordinatorFlags, io: Io): Promise<StartedRun> {
  const overrides = allOverrides(flags, flagOverrides(flags, io.cwd));
  const spec = await loadSpec(resolve(io.cwd, specOf(flags)), overrides);
  const resume = flags.resume === true;
  const runDir = await runDirOf(flags.runDir, resume, spec.name, io.cwd);
  return { runDir, spec, resume };
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

function allOverrides(
  flags: Pick<SpecFlags, "overrides">,
  fromFlags: readonly Override[],
): Override[] {
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
