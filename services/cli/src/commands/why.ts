/** `paddock why`: why a run does not go on, asked of its coordinator, or found out about the coordinator itself. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import { type Blocker, type Diagnosis, type Run, RunService } from "@paddock/proto";
import { grpcClient } from "@paddock/service-kit/client";
import { duration } from "../display/format.js";
import type { Io } from "../io.js";
import { incidentsOf, readLedger } from "../run/ledger-records.js";
import { newestRunDir, readJson } from "../run/run-directory.js";
import { clientTls, type TlsFlags } from "../security/client-tls.js";
import { resolveStage } from "../stages/stage-folders.js";

export interface WhyFlags extends TlsFlags {
  readonly runDir?: string;
  readonly coordinator?: string;
  readonly json?: boolean;
}

/** A coordinator that lives answers at once. */
const askTimeoutMs = 900;
const stuckExitCode = 4;

interface Answer extends Diagnosis {
  /** Committed steps, of so many. */
  readonly step: number;
  readonly steps: number;
  readonly generation: number;
  /** What guards did, the last times, oldest first. */
  readonly incidents: readonly string[];
}

/** Returns the exit code: 4 when nothing will happen unless somebody does something. */
export async function whyCommand(flags: WhyFlags, io: Io): Promise<number> {
  const answer = await answerTo(flags, io);
  io.out(flags.json ? `${JSON.stringify(answer)}\n` : `${textOf(answer, Date.now())}\n`);
  return answer.needsHelp ? stuckExitCode : 0;
}

async function answerTo(flags: WhyFlags, io: Io): Promise<Answer> {
  if (flags.coordinator !== undefined) {
    return answerOf(await ask(flags.coordinator, clientTls(flags, io)));
  }
  const named =
    flags.runDir === undefined ? await newestRunDir(io.cwd) : resolve(io.cwd, flags.runDir);
  const runDir = await resolveStage(named);
  const file = join(runDir, "coordinator.json");
  if (!existsSync(file)) return await fromFiles(runDir, undefined);
  const note = (await readJson(file)) as { address: string; pid: number; tlsDir?: string };
  try {
    return answerOf(await ask(note.address, clientTls(flags, io, note)));
  } catch (error) {
    const { code } = PaddockError.from(error);
    if (code === "unauthenticated" || code === "permission-denied") throw error;
    return await fromFiles(runDir, note.pid);
  }
}

async function ask(address: string, tls: ReturnType<typeof clientTls>): Promise<Run> {
  const client = grpcClient(address, RunService, { unreachable: "run-failed", tls });
  try {
    return await client.get({ runId: "" }, { timeoutMs: askTimeoutMs });
  } finally {
    client.close();
  }
}

function answerOf({ diagnosis, step, steps, generation, incidents }: Run): Answer {
  if (diagnosis) return { ...diagnosis, step, steps, generation, incidents };
  throw new PaddockError(
    "version-mismatch",
    "expected a coordinator that can say why, received one of an older release",
  );
}

/** What the run directory and the process table know when the coordinator does not answer. */
async function fromFiles(runDir: string, pid: number | undefined): Promise<Answer> {
  const ledger = await readLedger(runDir);
  const commit = ledger.findLast((record) => record.kind === "commit");
  const checkpoint = ledger.findLast((record) => record.kind === "checkpoint");
  const generation = ledger.findLast((record) => record.kind === "generation")?.generation ?? 0;
  const finished = ledger.some((record) => record.kind === "finished");
  const { steps } = (await readJson(join(runDir, "spec.json"))) as { steps: number };
  const incidents = incidentsOf(ledger);
  const known = { step: (commit?.step ?? -1) + 1, steps, generation, incidents };
  if (finished) {
    const over = { reason: "the run is over: finished", nextAction: "nothing" };
    return { ...known, ...over, blockers: [], nextActionUnixMs: 0, needsHelp: false };
  }
  const state = pid === undefined ? "dead" : processState(pid);
  const blocker: Blocker = {
    kind: "coordinator",
    name: pid === undefined ? "" : `pid ${pid}`,
    owes: "an answer",
    step: known.step,
    phase: state,
    lastProgressUnixMs: Math.round(commit?.unixMs ?? 0),
    deadlineUnixMs: 0,
  };
  const saved = checkpoint
    ? `checkpoint ${checkpoint.step} is durable`
    : "no checkpoint is durable";
  return {
    ...known,
    reason: `the coordinator ${reasons[state]}; step ${known.step} of ${steps} was reached, ${saved}`,
    blockers: [blocker],
    nextAction: remedies[state].replace("RUN", runDir).replace("PID", String(pid)),
    nextActionUnixMs: 0,
    needsHelp: true,
  };
}

type ProcessState = "dead" | "stopped" | "silent";

const reasons: Readonly<Record<ProcessState, string>> = {
  dead: "is not running",
  stopped: "is stopped (SIGSTOP or a debugger)",
  silent: `runs, but does not answer within ${askTimeoutMs} ms`,
};

const remedies: Readonly<Record<ProcessState, string>> = {
  dead: "none by itself: paddock resume RUN",
  stopped: "none by itself: kill -CONT PID",
  silent: "none by itself: look at its log and its load; kill PID and paddock resume RUN",
};

/** On this machine. */
function processState(pid: number): ProcessState {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // "pid (name) state ...": the name may hold anything, parentheses too.
    const state = stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3);
    if (state === "Z" || state === "X") return "dead";
    return state === "T" || state === "t" ? "stopped" : "silent";
  } catch {
    return "dead";
  }
}

function textOf(answer: Answer, now: number): string {
  const { step, steps, generation, reason, blockers, nextAction, nextActionUnixMs } = answer;
  const guards = answer.incidents.map((incident) => `  guard: ${incident}`);
  const ago = (unixMs: number): string => duration(Math.max(0, now - unixMs) / 1000);
  const lines = blockers
    .filter(({ kind }) => kind === "worker")
    .map(({ name, owes, phase, step: at, lastProgressUnixMs, deadlineUnixMs }) => {
      const left = duration(Math.max(0, deadlineUnixMs - now) / 1000);
      return `  ${name} owes ${owes}: ${phase || "start"} of step ${at}, last progress ${ago(lastProgressUnixMs)} ago, lease ends in ${left}`;
    });
  const when = nextActionUnixMs > now ? ` (in ${duration((nextActionUnixMs - now) / 1000)})` : "";
  return [
    `step ${step} of ${steps}, generation ${generation}: ${reason}`,
    ...lines,
    ...guards,
    `next: ${nextAction}${when}`,
  ].join("\n");
}
