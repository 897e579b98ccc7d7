/** `paddock checkpoint list|verify|prune`: the checkpoints of a run directory. */
import { rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import { listCheckpoints, verifyCheckpoint } from "@paddock/worker";
import type { Io } from "../io.js";
import { readLedger } from "../run/ledger-records.js";
import { newestRunDir, readRunSpec } from "../run/run-directory.js";
import { resolveStage } from "../stages/run-stages.js";

export interface CheckpointFlags {
  readonly runDir?: string;
  readonly step?: number;
  readonly keep?: number;
  readonly json?: boolean;
}

const corruptExitCode = 4;

async function runDirOf({ runDir }: CheckpointFlags, io: Io): Promise<string> {
  return await resolveStage(
    runDir === undefined ? await newestRunDir(io.cwd) : resolve(io.cwd, runDir),
  );
}

/** SHA-256 of each recorded checkpoint's manifest, by step. */
async function recordedManifests(runDir: string): Promise<ReadonlyMap<number, string>> {
  const records = await readLedger(runDir);
  return new Map(records.flatMap((r) => (r.kind === "checkpoint" ? [[r.step, r.manifest]] : [])));
}

/** Newest first. */
export async function listCommand(flags: CheckpointFlags, io: Io): Promise<number> {
  const runDir = await runDirOf(flags, io);
  const recorded = await recordedManifests(runDir);
  const listed = await listCheckpoints(join(runDir, "checkpoints"));
  const rows = listed.map(({ step, directory }) => ({
    step,
    directory,
    recorded: recorded.has(step),
  }));
  if (flags.json) io.out(`${JSON.stringify(rows)}\n`);
  else if (rows.length === 0) io.out("no complete checkpoint\n");
  for (const { step, directory, recorded: isRecorded } of flags.json ? [] : rows) {
    io.out(`step ${step}  ${directory}${isRecorded ? "" : "  not in the ledger"}\n`);
  }
  return 0;
}

/** Every byte of every checkpoint, or of one. Exit code 4 if one is damaged. */
export async function verifyCommand(flags: CheckpointFlags, io: Io): Promise<number> {
  const runDir = await runDirOf(flags, io);
  const [spec, recorded] = [await readRunSpec(runDir), await recordedManifests(runDir)];
  const all = await listCheckpoints(join(runDir, "checkpoints"));
  const steps = flags.step === undefined ? all.map(({ step }) => step) : [flags.step];
  let code = 0;
  for (const step of steps) {
    const directory = join(runDir, "checkpoints", String(step));
    try {
      const found = await verifyCheckpoint(directory, spec, recorded.get(step) ?? null);
      const text = `step ${step}: whole, ${found.bytes} bytes of ${found.workers} worker(s), state ${found.stateHash}`;
      io.out(flags.json ? `${JSON.stringify({ ok: true, ...found })}\n` : `${text}\n`);
    } catch (thrown) {
      const { code: reason, message } = PaddockError.from(thrown);
      code = corruptExitCode;
      const result = { ok: false, step, code: reason, message };
      io.out(flags.json ? `${JSON.stringify(result)}\n` : `step ${step}: ${message}\n`);
    }
  }
  return code;
}

/** Deletes all but the newest. The run must not be going: its coordinator does this by itself. */
export async function pruneCommand(flags: CheckpointFlags, io: Io): Promise<number> {
  const keep = flags.keep ?? 1;
  const runDir = await runDirOf(flags, io);
  const old = (await listCheckpoints(join(runDir, "checkpoints"))).slice(keep);
  for (const { directory } of old) await rm(directory, { recursive: true });
  const steps = old.map(({ step }) => step);
  io.out(
    flags.json
      ? `${JSON.stringify({ deleted: steps })}\n`
      : `deleted: ${steps.length > 0 ? steps.join(", ") : "nothing"}\n`,
  );
  return 0;
}
