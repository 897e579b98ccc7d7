/** `paddock eval knn <run-dir>`: how good the teacher of the last checkpoint is, measured with all images. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { PaddockError, type RunSpec } from "@paddock/contract";
import { listCheckpoints } from "@paddock/worker";
import { count, duration, percent } from "../display/format.js";
import type { Io } from "../io.js";
import { checkpointRootOf } from "../run/checkpoint-root.js";
import { evaluateCheckpoint } from "../run/evaluate-checkpoint.js";
import { readRunSpec } from "../run/run-directory.js";
import { redisUrlOf } from "../security/flags.js";
import { resolveStage } from "../stages/stage-folders.js";

export interface EvalKnnFlags {
  readonly runDir: string;
  readonly data?: string;
  readonly json?: boolean;
}

/** Returns the exit code. */
export async function evalKnnCommand(flags: EvalKnnFlags, io: Io): Promise<number> {
  const runDir = await resolveStage(resolve(io.cwd, flags.runDir));
  const spec = withData(await readRunSpec(runDir), flags.data && resolve(io.cwd, flags.data));
  const checkpointRoot = await checkpointRootOf(runDir);
  const step = await lastCheckpoint(checkpointRoot);
  const dir = await mkdtemp(join(tmpdir(), "paddock-eval-"));
  try {
    const { knnAccuracy, bank, queries, seconds } = await evaluateCheckpoint({
      runDir,
      checkpointRoot,
      step,
      spec,
      dir,
      redisUrl: await redisUrlOf({}, io),
      environment: io.environment,
    });
    const { k, temperature } = spec.evaluation;
    io.out(
      flags.json
        ? `${JSON.stringify({ runDir, step, knn: knnAccuracy, bank, queries, k, temperature, seconds })}\n`
        : `k-NN ${percent(knnAccuracy)} after ${count(step)} steps (k = ${k}, bank ${count(bank)}, queries ${count(queries)}, ${duration(seconds)})\n`,
    );
    return 0;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

function withData(spec: RunSpec, path: string | undefined): RunSpec {
  return path ? { ...spec, data: { ...spec.data, path } } : spec;
}

/** Step of the newest complete checkpoint. */
async function lastCheckpoint(root: string): Promise<number> {
  const [newest] = await listCheckpoints(root);
  if (newest) return newest.step;
  throw new PaddockError(
    "not-found",
    `expected a checkpoint in ${root}, found none; the first is written after checkpoint.everySteps steps`,
  );
}
