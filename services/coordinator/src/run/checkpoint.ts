/** From W files to one durable checkpoint; and evaluations, the other thing that workers hand in later. */
import { dataStepOf, type ErrorCode, isErrorCode, type Manifest } from "@paddock/contract";
import type { CheckpointFailed, CheckpointWritten, EvaluationDone } from "@paddock/proto";
import { decideIfPrepared } from "./commit.js";
import { endIfDone, fail } from "./ending.js";
import { keptCheckpoints, regroupIfDue, startIfPossible } from "./membership.js";
import { globalBatch, type PendingCheckpoint, type RunState, type WorkerId } from "./state.js";
import {
  append,
  count,
  log,
  refuseStale,
  type Turn,
  update,
  updateActive,
  updateWorker,
} from "./turn.js";

/** In a row: after so many the run ends, with the disk's reason. */
const maxFailedCheckpoints = 3;

/** A worker's file is on disk. The last one completes the checkpoint. */
export function receiveCheckpoint(turn: Turn, id: WorkerId, written: CheckpointWritten): void {
  const { active } = turn.state;
  const index = active?.members.indexOf(id) ?? -1;
  const pending = active?.pendingCheckpoints.find(({ step }) => step === written.step);
  const isCurrent = active?.generation === written.generation && pending?.files[index] === null;
  if (!isCurrent) {
    refuseStale(turn);
    return;
  }
  updateWorker(turn, id, { lastProgressMs: turn.now });
  const { file: name, bytes, sha256, headBytes, headSha256, ghash } = written;
  const extra = {
    ...(ghash === "" ? {} : { ghash }),
    ...(headBytes > 0 ? { head: { bytes: headBytes, sha256: headSha256 } } : {}),
  };
  const files = pending.files.with(index, { name, bytes, sha256, ...extra, worker: index });
  const complete = files.every((file) => file !== null);
  const replaced = { ...pending, files, complete };
  updateActive(turn, {
    pendingCheckpoints: active.pendingCheckpoints.map((p) => (p === pending ? replaced : p)),
  });
  if (complete) {
    turn.effects.push({ kind: "write-manifest", manifest: manifestOf(turn.state, replaced) });
  }
}

/** The manifest is durable, hence the checkpoint is: it enters the ledger, and only then may older ones go. */
export function manifestWritten(turn: Turn, written: Written & { readonly sha256: string }): void {
  const pending = take(turn, written);
  if (!pending) return;
  if (written.step > turn.state.durable.next) {
    // The run went back behind it meanwhile (guards): it holds steps that are void.
    startIfPossible(turn);
    return;
  }
  // The checkpoint vouches for the steps before it: their records must not be lost any more.
  turn.effects.push({ kind: "sync-steps" });
  append(turn, {
    kind: "checkpoint",
    step: written.step,
    generation: written.generation,
    manifest: written.sha256,
    scaler: pending.scaler,
    unixMs: turn.now,
  });
  const checkpointSeconds = (turn.now - pending.sinceMs) / 1000;
  update(turn, { checkpointSeconds, failedCheckpoints: 0 });
  turn.effects.push({ kind: "keep-checkpoints", steps: keptCheckpoints(turn.state) });
  log(turn, "info", "checkpoint durable", { step: written.step, seconds: checkpointSeconds });
  startIfPossible(turn);
  endIfDone(turn);
  regroupOrGoOn(turn);
}

/** No checkpoint. */
export function manifestFailed(
  turn: Turn,
  failed: Written & { readonly code: ErrorCode; readonly reason: string },
): void {
  const isCurrent = turn.state.active?.generation === failed.generation;
  if (!take(turn, failed)) return;
  if (isCurrent) loseCheckpoint(turn, failed);
  else {
    log(turn, "warn", "checkpoint lost", { step: failed.step, reason: failed.reason });
    startIfPossible(turn);
  }
}

/** A worker could not write its file. */
export function checkpointFailed(turn: Turn, id: WorkerId, failed: CheckpointFailed): void {
  const { active } = turn.state;
  const isCurrent = active?.generation === failed.generation && active.members.includes(id);
  if (!isCurrent || !take(turn, failed)) {
    refuseStale(turn);
    return;
  }
  const code = isErrorCode(failed.code) ? failed.code : "disk-unavailable";
  loseCheckpoint(turn, { step: failed.step, code, reason: failed.message });
}

/** Costs the checkpoint and not the run, unless it was the last one or has happened too often: the run is then safe no longer. */
function loseCheckpoint(
  turn: Turn,
  {
    step,
    code,
    reason,
  }: { readonly step: number; readonly code: ErrorCode; readonly reason: string },
): void {
  const failedCheckpoints = turn.state.failedCheckpoints + 1;
  update(turn, { failedCheckpoints });
  count(turn, { failedCheckpoints: 1 });
  log(turn, "warn", "checkpoint failed", { step, code, reason, inRow: failedCheckpoints });
  if (turn.state.active?.stopping || failedCheckpoints >= maxFailedCheckpoints) {
    const which = turn.state.active?.stopping
      ? "the last checkpoint"
      : `${failedCheckpoints} checkpoints in a row`;
    fail(turn, code, `${which} could not be written: ${reason}`);
    return;
  }
  turn.effects.push({ kind: "keep-checkpoints", steps: keptCheckpoints(turn.state) });
  regroupOrGoOn(turn);
}

interface Written {
  readonly generation: number;
  readonly step: number;
}

/** Removes the checkpoint from those that wait for their manifest. Undefined if nobody waits for it any more. */
function take(turn: Turn, { generation, step }: Written): PendingCheckpoint | undefined {
  const { active, orphans } = turn.state;
  if (active?.generation === generation) {
    const pending = active.pendingCheckpoints.find((known) => known.step === step);
    const others = active.pendingCheckpoints.filter((known) => known !== pending);
    updateActive(turn, { pendingCheckpoints: others });
    return pending;
  }
  const orphan = orphans.find((known) => known.generation === generation && known.step === step);
  update(turn, { orphans: orphans.filter((known) => known !== orphan) });
  return orphan;
}

/** Worker 0 evaluated the teacher. */
export function receiveEvaluation(turn: Turn, id: WorkerId, evaluation: EvaluationDone): void {
  const { active } = turn.state;
  const { step, knnAccuracy: knn, bank, queries, seconds } = evaluation;
  const isCurrent =
    active?.generation === evaluation.generation &&
    active.members[0] === id &&
    active.pendingEvaluations.includes(step);
  if (!isCurrent) {
    refuseStale(turn);
    return;
  }
  updateWorker(turn, id, { lastProgressMs: turn.now });
  append(turn, { kind: "evaluation", step, knn, bank, queries, unixMs: turn.now });
  updateActive(turn, {
    pendingEvaluations: active.pendingEvaluations.filter((pending) => pending !== step),
  });
  log(turn, "info", "teacher evaluated", { step, knn, bank, queries, seconds });
  endIfDone(turn);
  regroupOrGoOn(turn);
}

/** What decisions were held back for may be there now, or not be wanted any more. */
function regroupOrGoOn(turn: Turn): void {
  regroupIfDue(turn);
  decideIfPrepared(turn);
}

function manifestOf({ durable, layout, active }: RunState, pending: PendingCheckpoint): Manifest {
  const { spec, runId, leftOut } = durable;
  return {
    format: "paddock-checkpoint",
    version: 1,
    runId,
    step: pending.step,
    generation: active?.generation ?? 0,
    workers: pending.files.length,
    logicalRanks: spec.logicalRanks,
    parameters: layout.parameters,
    units: layout.units.map(({ name, elements }) => ({ name, elements })),
    files: pending.files.filter((file) => file !== null),
    scaler: pending.scaler,
    cursor: dataStepOf(leftOut, pending.step) * globalBatch(spec),
    ...(leftOut.length > 0 ? { leftOut } : {}),
  };
}
