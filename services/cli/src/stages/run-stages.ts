/** The stages of a staged spec, one run after the other; each in a folder of its own, so each resumes by itself. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { invariant, PaddockError } from "@paddock/contract";
import { listCheckpoints } from "@paddock/worker";
import type { Io } from "../io.js";
import { checkpointRootOf } from "../run/checkpoint-root.js";
import { executeRun, type RunFlags } from "../run/execute-run.js";
import { holdsRun, makeRunDir } from "../run/run-directory.js";
import { withWorkers } from "../run/with-workers.js";
import { holdsStages, stageDirs, stagesFile } from "./stage-folders.js";
import { needsCheckpoint, parseStages, type Stage, specOfStage } from "./staged-spec.js";

export interface StagesPlan {
  readonly runDir: string;
  /** The staged spec as it was read: paths are absolute, overrides applied. */
  readonly source: unknown;
  readonly resume: boolean;
  readonly flags: RunFlags;
  /** Replaces fleet.workers of every stage. */
  readonly workers?: number | undefined;
}

/** Runs what is left of the stages. Returns the exit code of the last one that ran. */
export async function executeStages(plan: StagesPlan, io: Io): Promise<number> {
  const { runDir, source, resume, flags } = plan;
  const staged = parseStages(source);
  if (!resume && holdsStages(runDir)) {
    throw new PaddockError(
      "already-exists",
      `expected no run in ${runDir}, but it holds stages; resume it, or choose another --run-dir`,
    );
  }
  await makeRunDir(runDir);
  if (!holdsStages(runDir))
    await writeFile(stagesFile(runDir), `${JSON.stringify(source, null, 2)}\n`);
  const folders = stageDirs(runDir, staged);
  for (const [index, stage] of staged.stages.entries()) {
    const folder = folders[index] as string;
    if (await isFinished(folder)) continue;
    const before = await lastCheckpointOf(stage, folders[index - 1]);
    const spec = withWorkers(specOfStage(stage, before), plan.workers);
    if (!flags.json) io.out(`stage ${index + 1} of ${folders.length}: ${stage.name}\n`);
    const code = await executeRun(
      {
        runDir: folder,
        spec,
        resume: holdsRun(folder),
        flags,
        host: "127.0.0.1",
        localWorkers: spec.fleet.workers,
      },
      io,
    );
    if (code !== 0) return code;
  }
  return 0;
}

async function isFinished(folder: string): Promise<boolean> {
  const ledger = await readFile(join(folder, "ledger.jsonl"), "utf8").catch(() => "");
  const last = ledger.trimEnd().split("\n").at(-1) ?? "";
  return last !== "" && (JSON.parse(last) as { kind?: unknown }).kind === "finished";
}

async function lastCheckpointOf(
  stage: Stage,
  before: string | undefined,
): Promise<string | undefined> {
  if (!needsCheckpoint(stage.fields)) return undefined;
  invariant(before, "the first stage needs no other");
  const [newest] = await listCheckpoints(await checkpointRootOf(before));
  if (newest) return newest.directory;
  throw new PaddockError(
    "not-found",
    `expected a checkpoint of the stage before ${stage.name} in ${before}, found none`,
  );
}
