/** One run from its checks to its result: what all commands that train share. */
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isErrorCode, PaddockError, type RunSpec } from "@paddock/contract";
import type { CoordinatorResult } from "@paddock/coordinator";
import { openDataset } from "@paddock/data";
import type { Display } from "../display/display.js";
import { openDisplay } from "../display/open-display.js";
import type { Io } from "../io.js";
import { writeReport } from "../report/write-report.js";
import {
  coordinatorSecurity,
  type RedisFlags,
  redisUrlOf,
  type SecurityFlags,
} from "../security/flags.js";
import { runLocally } from "./local-run.js";
import { resultText } from "./result.js";
import { checkHoldsRun, holdsRun, makeRunDir } from "./run-directory.js";

/** Flags that every way of starting a run takes. */
export interface RunFlags extends SecurityFlags, RedisFlags {
  readonly metricsHost?: string;
  readonly port: number;
  readonly metricsPort: number;
  readonly json?: boolean;
}

/** What to run, and where. */
export interface StartedRun {
  /** Absolute. */
  readonly runDir: string;
  readonly spec: RunSpec;
  readonly resume: boolean;
  /** Texts to keep in the run directory, by file name. */
  readonly notes?: Readonly<Record<string, string>>;
}

export interface RunPlan extends StartedRun {
  readonly flags: RunFlags;
  readonly host: string;
  /** Worker processes to start here; 0 when they come from elsewhere. */
  readonly localWorkers: number;
}

/** Runs to the end and shows it. Returns the exit code: 0, or 130 after a drain. Errors carry theirs. */
export async function executeRun(plan: RunPlan, io: Io): Promise<number> {
  const { runDir, spec, flags } = plan;
  if (plan.resume) checkHoldsRun(runDir);
  // Elsewhere started workers have their own view of the disk.
  if (plan.localWorkers > 0) await checkDataset(spec);
  const made = await makeRunDir(runDir);
  const display = openDisplay(
    io,
    { runDir, evaluateEvery: spec.evaluation.everySteps },
    flags.json === true,
  );
  try {
    for (const [name, text] of Object.entries(plan.notes ?? {})) {
      await writeFile(join(runDir, name), text);
    }
    const end = await runLocally({
      ...plan,
      port: flags.port,
      metricsPort: flags.metricsPort,
      metricsHost: flags.metricsHost,
      security: await coordinatorSecurity(flags, io),
      display,
      environment: io.environment,
      redisUrl: await redisUrlOf(flags, io),
    });
    return await conclude(end, runDir, display);
  } catch (thrown) {
    const error = PaddockError.from(thrown);
    if (flags.json)
      display.event({ kind: "error", message: error.message, fields: { code: error.code } });
    // It failed before it began (a port, Redis): nothing worth keeping.
    if (made && !holdsRun(runDir)) await rm(runDir, { recursive: true, force: true });
    throw error;
  } finally {
    display.close();
  }
}

/** Fails here, at once and once, rather than later in every worker. */
async function checkDataset({ data, evaluation }: RunSpec): Promise<void> {
  await openDataset(data, "train");
  const labelled = data.kind === "idx" || data.validationPath !== null;
  if (labelled && evaluation.everySteps > 0) await openDataset(data, "validation");
}

async function conclude(end: CoordinatorResult, runDir: string, display: Display): Promise<number> {
  if (end.kind === "failed") {
    const code = end.code !== undefined && isErrorCode(end.code) ? end.code : "run-failed";
    // Going on with what has collapsed mends nothing.
    const next =
      code === "collapsed"
        ? `change the spec and start again; the run's charts: paddock report ${runDir}`
        : `continue with: paddock resume ${runDir}`;
    throw new PaddockError(code, `${end.reason}; ${next}`);
  }
  const report = await writeReport(runDir);
  if (end.kind === "interrupted") {
    display.event({
      kind: "result",
      message: `interrupted (${end.reason}) after a clean drain; continue with: paddock resume ${runDir}`,
      fields: { end: end.kind, runDir, report },
    });
    return 130;
  }
  display.event({
    kind: "result",
    message: end.summary ? resultText(end.summary, report) : `report ${report}`,
    fields: { end: end.kind, runDir, report, summary: end.summary },
  });
  return 0;
}
