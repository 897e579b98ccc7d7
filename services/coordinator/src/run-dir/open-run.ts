/** A run directory on the way in: what is in it, and whether that fits what was asked for. */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { PaddockError, type RunSpec } from "@paddock/contract";
import { diskError, type Logger, writeDurably } from "@paddock/service-kit";
import { checkpointRoot, storeOf } from "@paddock/service-kit/checkpoint-store";
import { openFileLedger } from "../ledger/file-ledger.js";
import type { Ledger } from "../ledger/ledger.js";
import { type DurableState, fold, type RunRecord } from "../run/durable.js";
import { openCheckpoints } from "./checkpoints.js";
import { pinOrigins, startOf, withPinsOf } from "./origins.js";
import { checkResumedSpec } from "./resumed-spec.js";

export interface OpenRunOptions {
  readonly runDir: string;
  readonly spec?: RunSpec;
  readonly resume: boolean;
}

export interface OpenedRun {
  readonly ledger: Ledger;
  /** The run to go on with; undefined in an empty directory. */
  readonly recorded: DurableState | undefined;
  /** The spec to record before the run starts: of a new run, or one that differs from the recorded one. */
  readonly specToRecord: RunSpec | undefined;
}

/**
 * Makes the directory if needed, takes its lock and reads its ledger; changes nothing else. The caller closes the ledger.
 * `already-exists`: there is a run, and nobody asked to resume; or another coordinator is on it. `not-found`: there is
 * none to resume. `invalid-spec`, `ledger-corrupt`, `checkpoint-corrupt`: it cannot be resumed like this.
 */
export async function openRun(options: OpenRunOptions, log: Logger): Promise<OpenedRun> {
  const { runDir } = options;
  await mkdir(runDir, { recursive: true }).catch((error) => {
    throw diskError(error, `make the run directory ${runDir}`);
  });
  const ledger = await openFileLedger(runDir);
  try {
    if (ledger.tornBytes > 0) {
      log.warn({ bytes: ledger.tornBytes }, "cut a half-written record off the ledger's end");
    }
    const recorded = fold(ledger.records);
    const specToRecord = await checkRequest(options, recorded, log);
    const current = specToRecord ?? recorded?.spec;
    if (current && !recorded?.finished) await prepareCheckpoints(current, runDir);
    const newest = recorded?.checkpoints.at(-1);
    if (recorded && newest && !recorded.finished) {
      const checkpoints = openCheckpoints(checkpointRootOf(recorded, runDir));
      await checkpoints.verify(newest.step, newest.manifest);
    }
    return { ledger, recorded, specToRecord };
  } catch (error) {
    await ledger.close();
    throw error;
  }
}

/** Finds out, before a run is recorded, whether its checkpoints can be written where its spec says. */
export async function prepareCheckpoints(
  { checkpoint: { storage } }: RunSpec,
  runDir: string,
): Promise<void> {
  // Before there is an id.
  const root = storage ?? checkpointRoot({ storage, runDir, runId: "" });
  await storeOf(root).prepare(root);
}

/** Where a recorded run's checkpoints lie. */
export function checkpointRootOf({ runId, spec }: DurableState, runDir: string): string {
  return checkpointRoot({ storage: spec.checkpoint.storage, runDir, runId });
}

/** Records the run, or its changed spec, and writes spec.json. Returns the state to start from. */
export async function recordRun(
  { ledger, recorded }: Pick<OpenedRun, "ledger" | "recorded">,
  runDir: string,
  spec: RunSpec,
  unixMs: number,
): Promise<DurableState> {
  const runId = recorded?.runId ?? newRunId(spec.name, unixMs);
  const start = recorded ? undefined : await startOf(spec);
  const record: RunRecord = { kind: "run", runId, spec, ...(start ? { start } : {}), unixMs };
  await writeDurably(join(runDir, "spec.json"), `${JSON.stringify(spec, null, 2)}\n`);
  await ledger.append(record);
  return fold([...ledger.records, record]) as DurableState;
}

async function checkRequest(
  { runDir, spec, resume }: OpenRunOptions,
  recorded: DurableState | undefined,
  log: Logger,
): Promise<RunSpec | undefined> {
  if (!recorded) {
    if (!resume) return spec && (await pinOrigins(spec));
    throw new PaddockError(
      "not-found",
      `expected a run to resume in ${runDir}, received a directory without one; check --run-dir, or leave --resume out to start one`,
    );
  }
  if (!resume) {
    throw new PaddockError(
      "already-exists",
      `expected no run in ${runDir}, but it holds ${recorded.runId} at step ${recorded.next}; go on with --resume, or choose another --run-dir`,
    );
  }
  if (!spec || recorded.finished) return undefined;
  const pinned = withPinsOf(recorded.spec, spec);
  for (const path of checkResumedSpec(recorded.spec, pinned)) {
    log.warn({ path }, "this changes the order of sums: the run goes on, but not bit for bit");
  }
  return JSON.stringify(pinned) === JSON.stringify(recorded.spec) ? undefined : pinned;
}

/** Readable, sortable, unique: "<name>-<utc date>-<utc time>-<6 hex digits>". */
function newRunId(name: string, unixMs: number): string {
  const time = new Date(unixMs)
    .toISOString()
    .slice(0, 19)
    .replaceAll(/[-:]/g, "")
    .replace("T", "-");
  return `${name}-${time}-${randomBytes(3).toString("hex")}`;
}
