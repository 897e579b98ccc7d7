/** `paddock checkpoint list|verify|repair|prune [run-dir]`: what a run can go on from, whether it is sound, and room for more. */
import { resolve } from "node:path";
import { keptSteps, PaddockError, type RunSpec } from "@paddock/contract";
import { type DurableState, fold, lockRun, type RunRecord } from "@paddock/coordinator";
import { checkpointRoot, childOf, storeOf } from "@paddock/service-kit/checkpoint-store";
import {
  listCheckpoints,
  type Repair,
  repairCheckpoint,
  type VerifiedCheckpoint,
  verifyCheckpoint,
} from "@paddock/worker";
import { count } from "../display/format.js";
import type { Io } from "../io.js";
import { readLedger } from "../run/ledger-records.js";
import { newestRunDir, readRunSpec } from "../run/run-directory.js";
import { resolveStage } from "../stages/stage-folders.js";

interface Flags {
  /** Absent: the newest in runs/. */
  readonly runDir?: string;
  readonly json?: boolean;
}

interface Run {
  readonly runDir: string;
  /** Where its checkpoints lie. */
  readonly root: string;
  readonly spec: RunSpec;
  /** Those that the run can go on from, oldest first; some may have been deleted since. */
  readonly durable: DurableState["checkpoints"];
  /** Steps of those that the run itself keeps. */
  readonly kept: readonly number[];
}

async function openRun(flags: Flags, io: Io): Promise<Run> {
  const runDir = await resolveStage(
    flags.runDir === undefined ? await newestRunDir(io.cwd) : resolve(io.cwd, flags.runDir),
  );
  const spec = await readRunSpec(runDir);
  const state = fold((await readLedger(runDir)) as RunRecord[]);
  const { storage } = spec.checkpoint;
  const root = checkpointRoot({ storage, runDir, runId: state?.runId ?? "" });
  return { runDir, root, spec, durable: state?.checkpoints ?? [], kept: state?.kept ?? [] };
}

/** Returns the exit code, as all commands do. */
export async function listCheckpointsCommand(flags: Flags, io: Io): Promise<number> {
  const { runDir, root, durable } = await openRun(flags, io);
  const complete = new Set((await listCheckpoints(root)).map(({ step }) => step));
  const listed = (await storeOf(root).steps(root)).map((step) => ({
    step,
    directory: childOf(root, String(step)),
    complete: complete.has(step),
    inLedger: durable.some((known) => known.step === step),
  }));
  if (flags.json) {
    io.out(`${JSON.stringify({ runDir, checkpoints: listed })}\n`);
    return 0;
  }
  const lines = listed.map(({ step, directory, ...is }) => {
    const what = is.complete && is.inLedger ? "complete" : "not complete";
    return `${count(step).padStart(12)}  ${what.padEnd(12)}  ${directory}\n`;
  });
  io.out(lines.join("") || "no checkpoint\n");
  return 0;
}

/** Exit code 4 when one is damaged, after all have been read. */
export async function verifyCheckpointsCommand(
  flags: Flags & { readonly step?: number },
  io: Io,
): Promise<number> {
  const run = await openRun(flags, io);
  const verified: (VerifiedCheckpoint | { readonly step: number; readonly error: string })[] = [];
  for (const step of await stepsToVerify(run, flags.step)) {
    verified.push(await verifyOne(run, step));
  }
  const isSound = verified.every((one) => !("error" in one));
  if (flags.json) io.out(`${JSON.stringify({ runDir: run.runDir, checkpoints: verified })}\n`);
  else io.out(verified.map((one) => `${lineOf(one)}\n`).join(""));
  return isSound ? 0 : 4;
}

function lineOf(one: VerifiedCheckpoint | { step: number; error: string }): string {
  if ("error" in one) return `${count(one.step).padStart(12)}  DAMAGED  ${one.error}`;
  const { step, bytes, workers, stateHash } = one;
  return `${count(step).padStart(12)}  ok       state ${stateHash}  ${count(bytes)} bytes of ${workers} workers`;
}

async function stepsToVerify({ root, durable }: Run, step: number | undefined) {
  const stored = await storeOf(root).steps(root);
  const known = stored.filter((found) => durable.some((other) => other.step === found));
  if (step === undefined && known.length > 0) return known;
  if (step !== undefined && known.includes(step)) return [step];
  throw new PaddockError(
    "not-found",
    `expected a complete checkpoint${step === undefined ? "" : ` of step ${step}`} in ${root}, found ${known.join(", ") || "none"}`,
  );
}

async function verifyOne({ root, spec, durable }: Run, step: number) {
  const sha256 = durable.find((known) => known.step === step)?.manifest ?? null;
  try {
    return await verifyCheckpoint(childOf(root, String(step)), spec, sha256);
  } catch (thrown) {
    const { code, message: error } = PaddockError.from(thrown);
    // A manifest that is gone is damage too; anything else is not the checkpoint's fault.
    if (code !== "checkpoint-corrupt" && code !== "not-found") throw thrown;
    return { step, error };
  }
}

/** Exit code 4 when something stays damaged. Errors: `already-exists` while a coordinator has the run. */
export async function repairCheckpointsCommand(
  flags: Flags & { readonly step?: number },
  io: Io,
): Promise<number> {
  const run = await openRun(flags, io);
  const release = await lockRun(run.runDir);
  const all: (Repair & { readonly step: number })[] = [];
  try {
    for (const step of await stepsToVerify(run, flags.step)) {
      const sha256 = run.durable.find((known) => known.step === step)?.manifest ?? null;
      const repairs = await repairCheckpoint(childOf(run.root, String(step)), sha256);
      all.push(...repairs.map((repair) => ({ step, ...repair })));
    }
  } finally {
    await release();
  }
  if (flags.json) io.out(`${JSON.stringify({ runDir: run.runDir, repairs: all })}\n`);
  else if (all.length === 0) io.out("nothing is damaged\n");
  for (const { step, file, damage, remains } of flags.json ? [] : all) {
    const end = remains === null ? "written anew from its replica" : `NOT repaired: ${remains}`;
    io.out(`${count(step).padStart(12)}  ${file}  ${damage}; ${end}\n`);
  }
  return all.every(({ remains }) => remains === null) ? 0 : 4;
}

interface PruneFlags extends Flags {
  readonly keep?: number;
  readonly keepEvery?: number;
  readonly dryRun?: boolean;
}

/** Errors: `already-exists` while a coordinator has the run. */
export async function pruneCheckpointsCommand(flags: PruneFlags, io: Io): Promise<number> {
  const run = await openRun(flags, io);
  // A coordinator at work deletes old checkpoints by itself, and has some of its own in progress.
  const release = await lockRun(run.runDir);
  try {
    return await prune(run, flags, io);
  } finally {
    await release();
  }
}

async function prune(run: Run, flags: PruneFlags, io: Io): Promise<number> {
  const { runDir, root, spec, durable } = run;
  const store = storeOf(root);
  const { keep = spec.checkpoint.keep, keepEvery = spec.checkpoint.keepEvery } = flags;
  const stored = await store.steps(root);
  const known = durable.filter(({ step }) => stored.includes(step));
  // Without a word about it the run's own rule holds, which also keeps what its guards may need.
  const isAsked = flags.keep !== undefined || flags.keepEvery !== undefined;
  const kept = isAsked
    ? keptSteps(known, { keep, keepEvery })
    : run.kept.filter((step) => stored.includes(step));
  const deleted = stored.filter((step) => !kept.includes(step));
  for (const step of flags.dryRun ? [] : deleted) await store.remove(childOf(root, String(step)));
  if (flags.json) {
    io.out(`${JSON.stringify({ runDir, kept, deleted, dryRun: flags.dryRun ?? false })}\n`);
    return 0;
  }
  const list = (steps: readonly number[]): string => steps.map(count).join("  ") || "none";
  const verb = flags.dryRun ? "would delete" : "deleted";
  io.out(`kept: ${list(kept)}\n${verb}: ${list(deleted)}\n`);
  return 0;
}
