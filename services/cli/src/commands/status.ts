/** `paddock status`: where a run stands, asked of its coordinator, or read from its files when that is gone. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Run, RunPhase, RunService } from "@paddock/proto";
import { grpcClient } from "@paddock/service-kit";
import { duration, percent } from "../display/format.js";
import { plainBlock } from "../display/live.js";
import type { Io } from "../io.js";
import { newestRunDir, readJson, readRunSpec } from "../run/run-directory.js";
import { readStepRecords } from "../run/step-records.js";
import { resolveStage } from "../stages/run-stages.js";

export interface StatusFlags {
  readonly runDir?: string;
  readonly coordinator?: string;
  readonly json?: boolean;
}

const askTimeoutMs = 3_000;

/** Returns the exit code. */
export async function statusCommand(flags: StatusFlags, io: Io): Promise<number> {
  if (flags.coordinator !== undefined) {
    showLive(await ask(flags.coordinator), flags, io);
    return 0;
  }
  const named =
    flags.runDir === undefined ? await newestRunDir(io.cwd) : resolve(io.cwd, flags.runDir);
  const runDir = await resolveStage(named);
  const run = await askOwner(runDir);
  if (run) showLive(run, flags, io);
  else await showFiles(runDir, flags, io);
  return 0;
}

async function ask(address: string): Promise<Run> {
  const client = grpcClient(address, RunService, { unreachable: "run-failed" });
  try {
    return await client.get({ runId: "" }, { timeoutMs: askTimeoutMs });
  } finally {
    client.close();
  }
}

/** The run as its coordinator sees it, or undefined when none answers at the address that it left. */
async function askOwner(runDir: string): Promise<Run | undefined> {
  const note = join(runDir, "coordinator.json");
  if (!existsSync(note)) return undefined;
  const { address } = (await readJson(note)) as { address: string };
  return ask(address).catch(() => undefined);
}

function showLive(run: Run, { json }: StatusFlags, io: Io): void {
  const phase = phaseName(run);
  if (json) {
    const { lastStepJson, ...rest } = run;
    const lastStep: unknown = lastStepJson === "" ? null : JSON.parse(lastStepJson);
    io.out(`${JSON.stringify({ ...rest, phase, lastStep })}\n`);
    return;
  }
  const workers = run.workers.map(
    (w) =>
      `  ${w.workerName}  ${w.phase} of step ${w.step}  ${w.engine} on ${w.host}, pid ${w.pid}`,
  );
  const reason = run.reason === "" ? "" : `: ${run.reason}`;
  io.out(`${[`${phase}${reason}`, ...plainBlock(run), ...workers].join("\n")}\n`);
}

/** "running" of RUN_PHASE_RUNNING. */
function phaseName(run: Run): string {
  const [name = "unknown"] =
    Object.entries(RunPhase).find(([, value]) => value === run.phase) ?? [];
  return name.replace("RUN_PHASE_", "").toLowerCase();
}

async function showFiles(runDir: string, { json }: StatusFlags, io: Io): Promise<void> {
  const spec = await readRunSpec(runDir);
  const records = await readStepRecords(runDir);
  const last = records.at(-1);
  const step = last === undefined ? 0 : last.step + 1;
  const finished = existsSync(join(runDir, "summary.json")) && step >= spec.steps;
  const phase = finished ? "finished" : "stopped";
  if (json) {
    io.out(
      `${JSON.stringify({ runDir, phase, step, steps: spec.steps, lastStep: last ?? null })}\n`,
    );
    return;
  }
  const age =
    last === undefined ? "" : `, last commit ${duration((Date.now() - last.unixMs) / 1000)} ago`;
  const done = percent(step / spec.steps);
  const next = finished ? "" : `\ncontinue with: paddock resume ${runDir}`;
  io.out(`${phase}: step ${step}/${spec.steps} (${done})${age}\n${runDir}${next}\n`);
}
