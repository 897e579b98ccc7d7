/** `paddock status`: where a run stands, asked of its coordinator, or read from its files when that is gone. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import { type Run, RunPhase, RunService, type WorkerStatus } from "@paddock/proto";
import { grpcClient, type TlsOptions } from "@paddock/service-kit/client";
import { duration, percent } from "../display/format.js";
import { plainBlock } from "../display/live.js";
import type { Io } from "../io.js";
import { alertsOf, incidentsOf, readLedger } from "../run/ledger-records.js";
import { newestRunDir, readJson, readRunSpec } from "../run/run-directory.js";
import { readStepRecords } from "../run/step-records.js";
import { clientTls, type TlsFlags } from "../security/client-tls.js";
import { resolveStage } from "../stages/stage-folders.js";

export interface StatusFlags extends TlsFlags {
  readonly runDir?: string;
  readonly coordinator?: string;
  readonly json?: boolean;
}

/** With the run's files at hand they answer instead; without, even a coordinator on an overloaded machine is waited for. */
const askTimeoutMs = { withFiles: 3_000, alone: 15_000 };

/** Returns the exit code. */
export async function statusCommand(flags: StatusFlags, io: Io): Promise<number> {
  if (flags.coordinator !== undefined) {
    const run = await ask(flags.coordinator, clientTls(flags, io), askTimeoutMs.alone);
    showLive(run, flags, io);
    return 0;
  }
  const named =
    flags.runDir === undefined ? await newestRunDir(io.cwd) : resolve(io.cwd, flags.runDir);
  const runDir = await resolveStage(named);
  const run = await askOwner(runDir, flags, io);
  if (run) showLive(run, flags, io);
  else await showFiles(runDir, flags, io);
  return 0;
}

async function ask(address: string, tls: TlsOptions | undefined, timeoutMs: number): Promise<Run> {
  const client = grpcClient(address, RunService, { unreachable: "run-failed", tls });
  try {
    return await client.get({ runId: "" }, { timeoutMs });
  } finally {
    client.close();
  }
}

/** The run as its coordinator sees it, or undefined when none answers at the address that it left. */
async function askOwner(runDir: string, flags: TlsFlags, io: Io): Promise<Run | undefined> {
  const note = join(runDir, "coordinator.json");
  if (!existsSync(note)) return undefined;
  const left = (await readJson(note)) as { address: string; tlsDir?: string };
  const tls = clientTls(flags, io, left);
  return ask(left.address, tls, askTimeoutMs.withFiles).catch((error: unknown) => {
    const { code } = PaddockError.from(error);
    // It is there, and does not want us: the files would hide that.
    if (code === "unauthenticated" || code === "permission-denied") throw error;
    return undefined;
  });
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
      `  ${w.workerName}  ${w.phase} of step ${w.step}  ${shareOf(w)}  ${w.engine} on ${w.host}, pid ${w.pid}`,
  );
  const reason = run.reason === "" ? "" : `: ${run.reason}`;
  io.out(`${[`${phase}${reason}`, ...plainBlock(run), ...workers].join("\n")}\n`);
}

/** "3 ranks, 0.214 s each". */
function shareOf({ ranks, secondsPerRank }: WorkerStatus): string {
  if (ranks === 0) return "waits";
  const pace = secondsPerRank > 0 ? `, ${secondsPerRank.toFixed(3)} s each` : "";
  return `${ranks} ${ranks === 1 ? "rank" : "ranks"}${pace}`;
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
  const ledger = await readLedger(runDir);
  const alerts = alertsOf(ledger);
  const incidents = incidentsOf(ledger);
  const last = records.at(-1);
  const step = last === undefined ? 0 : last.step + 1;
  const finished = existsSync(join(runDir, "summary.json")) && step >= spec.steps;
  const phase = finished ? "finished" : "stopped";
  if (json) {
    io.out(
      `${JSON.stringify({ runDir, phase, step, steps: spec.steps, lastStep: last ?? null, alerts, incidents })}\n`,
    );
    return;
  }
  const age =
    last === undefined ? "" : `, last commit ${duration((Date.now() - last.unixMs) / 1000)} ago`;
  const done = percent(step / spec.steps);
  const next = finished ? "" : `\ncontinue with: paddock resume ${runDir}`;
  const warnings = [
    ...alerts.map(({ message }) => `\nwarning: ${message}`),
    ...incidents.map((incident) => `\nguard: ${incident}`),
  ].join("");
  io.out(`${phase}: step ${step}/${spec.steps} (${done})${age}\n${runDir}${warnings}${next}\n`);
}
