/** The one decision about each step. */
import {
  dataStepOf,
  type Offender,
  type RunSpec,
  type ScalerState,
  type StepRecord,
  scalarsAt,
} from "@paddock/contract";
import { DecisionKind, type Prepared } from "@paddock/proto";
import { segmentAt } from "../plan/plan-run.js";
import { watchForCollapse } from "./alert.js";
import { measurePaces, rebalanceDue } from "./balance.js";
import { needsScaling } from "./durable.js";
import { guardStep, skipCount } from "./guards/act.js";
import { offenderOf } from "./guards/offender.js";
import { letLeaversGo } from "./holdings.js";
import { regroupIfDue, segmentsEffect } from "./membership.js";
import {
  type ActiveGeneration,
  candidates,
  checkpointDue,
  evaluationDue,
  membersChange,
  type PendingCheckpoint,
  type RunState,
  type WorkerId,
} from "./state.js";
import { type StepResult, stepResult } from "./step-result.js";
import {
  append,
  count,
  log,
  refuseStale,
  send,
  type Turn,
  update,
  updateActive,
  updateWorker,
} from "./turn.js";

/** Commits over which the rate is measured, and one more to measure from. */
const recentCommits = 21;

/** A worker's gradient shard of a step is complete. */
export function receivePrepared(turn: Turn, id: WorkerId, prepared: Prepared): void {
  const { active, durable, workers } = turn.state;
  const index = active?.members.indexOf(id) ?? -1;
  const isCurrent =
    active?.generation === prepared.generation &&
    durable.next === prepared.step &&
    active.prepared[index] === null;
  if (!isCurrent) {
    refuseStale(turn);
    return;
  }
  const before = workers.find((worker) => worker.id === id)?.badImages ?? 0;
  count(turn, { badImages: Math.max(0, prepared.badImages - before) });
  updateWorker(turn, id, {
    step: prepared.step,
    phase: "prepared",
    waitingOn: [],
    lastProgressMs: turn.now,
    stateBytes: prepared.stateBytes,
    peakGatheredBytes: prepared.peakGatheredBytes,
    eventLoopP99Ms: prepared.eventLoopP99Ms,
    badImages: prepared.badImages,
    deviceAllocatedBytes: prepared.deviceAllocatedBytes,
    devicePeakBytes: prepared.devicePeakBytes,
    deviceReservedBytes: prepared.deviceReservedBytes,
  });
  updateActive(turn, { prepared: active.prepared.with(index, prepared) });
  decideIfPrepared(turn);
}

/** Commits or skips the step once all workers have prepared it, unless decisions are held back. */
export function decideIfPrepared(turn: Turn): void {
  const { active, outcome, paused, durable, layout, workers } = turn.state;
  if (!active || outcome || paused || active.stopping || active.regroupAt !== null) return;
  const prepared = active.prepared.filter((message) => message !== null);
  if (prepared.length < active.members.length) return;
  const { spec, next: step, scaler } = durable;
  const result = stepResult(layout, spec.logicalRanks, prepared);
  const names = active.members.map((id) => workers.find((known) => known.id === id)?.name ?? "");
  const isScaled = needsScaling(spec) && scaler.scale > 1;
  const offender = result.finite ? undefined : offenderOf(layout, prepared, names, isScaled);
  const done = stepRecord(turn, active, result, offender);
  // Before the commit: a crash between the two leaves a record too many, which is dropped, and not one too few.
  turn.effects.push({ kind: "write-step", record: done });
  append(turn, {
    kind: "commit",
    step,
    generation: active.generation,
    skipped: !result.finite,
    ...(offender ? { offender } : {}),
    ...(spec.guards.spike ? { loss: result.losses.total } : {}),
    scaler: nextScaler(spec, scaler, result.finite),
    norms: result.updateNorms,
    unixMs: turn.now,
  });
  measurePaces(turn, prepared);
  count(turn, {
    steps: 1,
    ...skipCount(offender),
    images: result.images,
    exchangeBytes: result.exchangeBytes,
  });
  if (!guardStep(turn, active, offender)) return;
  announce(turn, active, result);
  record(turn, done);
  if (done.monitor) watchForCollapse(turn, active, { step: done.step, monitor: done.monitor });
  if (active.commits === 0) letLeaversGo(turn);
  regroupIfDue(turn);
}

/**
 * The loss scale of the next step: halved after an overflow, doubled after enough good steps; 1 where no gradient
 * passes through fp16.
 */
export function nextScaler(spec: RunSpec, scaler: ScalerState, finite: boolean): ScalerState {
  if (!needsScaling(spec)) return scaler;
  if (!finite) return { scale: scaler.scale / 2, goodSteps: 0 };
  const goodSteps = scaler.goodSteps + 1;
  return goodSteps < spec.exchange.scaleGrowthSteps
    ? { scale: scaler.scale, goodSteps }
    : { scale: scaler.scale * 2, goodSteps: 0 };
}

interface Flags {
  readonly checkpoint: boolean;
  readonly evaluate: boolean;
  readonly stop: boolean;
  readonly regroup: boolean;
}

/** What else happens after the step that has just been committed. */
function flagsOf(state: RunState, active: ActiveGeneration): Flags {
  const { durable, draining, checkpointRequested } = state;
  const { spec, next } = durable;
  const isLast = next === spec.steps;
  const stop = isLast || draining !== null;
  const isOther = !stop && membersChange(state, active);
  // Without anybody who stays, the state would be gone with the last one.
  const isLastChance = isOther && candidates(state).length === 0;
  const checkpoint = stop || isLastChance || checkpointRequested || checkpointDue(spec, next);
  const evaluate = evaluationDue(spec, next) && (isLast || !stop);
  // Other cuts alone are not worth a wait for a checkpoint.
  const regroup = isOther || (!stop && !checkpoint && !evaluate && rebalanceDue(state));
  return { stop, regroup, checkpoint, evaluate };
}

/** Tells the members, and moves on. */
function announce(turn: Turn, active: ActiveGeneration, result: StepResult): void {
  const { durable } = turn.state;
  const { checkpoint, evaluate, stop, regroup } = flagsOf(turn.state, active);
  const decision = {
    generation: active.generation,
    step: durable.next - 1,
    kind: result.finite ? DecisionKind.DECISION_KIND_COMMIT : DecisionKind.DECISION_KIND_SKIP,
    gradNorm: result.updateNorms,
    scale: durable.scaler.scale,
    goodSteps: durable.scaler.goodSteps,
    checkpoint,
    evaluate,
    stop,
  };
  for (const id of active.members) send(turn, id, { kind: "decision", decision });
  const pending: PendingCheckpoint = {
    step: durable.next,
    files: active.members.map(() => null),
    complete: false,
    scaler: durable.scaler,
    sinceMs: turn.now,
  };
  updateActive(turn, {
    prepared: active.members.map(() => null),
    commits: active.commits + 1,
    pendingCheckpoints: checkpoint
      ? [...active.pendingCheckpoints, pending]
      : active.pendingCheckpoints,
    pendingEvaluations: evaluate
      ? [...active.pendingEvaluations, durable.next]
      : active.pendingEvaluations,
    regroupAt: regroup ? durable.next : null,
    stopping: stop,
  });
  update(turn, {
    barren: 0,
    checkpointRequested: turn.state.checkpointRequested && !checkpoint,
    workers: turn.state.workers.map((worker) =>
      active.members.includes(worker.id) ? { ...worker, lastProgressMs: turn.now } : worker,
    ),
  });
  if (!stop) orderSegments(turn, active);
}

/** At the end of a segment: jobs for the segment after the next one. */
function orderSegments(turn: Turn, active: ActiveGeneration): void {
  const { spec, next } = turn.state.durable;
  if (segmentAt(spec, active.startStep, next - 1).end > next) return;
  turn.effects.push(segmentsEffect(turn.state, active, next));
  log(turn, "info", "segment committed", { step: next, generation: active.generation });
}

function record(turn: Turn, step: StepRecord): void {
  const { recent } = turn.state;
  update(turn, {
    lastStep: step,
    lastCommitMs: turn.now,
    recent: [...recent, { unixMs: turn.now, images: step.images }].slice(-recentCommits),
  });
}

function stepRecord(
  turn: Turn,
  active: ActiveGeneration,
  result: StepResult,
  offender: Offender | undefined,
): StepRecord {
  const { spec, next: step, scaler, leftOut } = turn.state.durable;
  const dataStep = dataStepOf(leftOut, step);
  const scalars = scalarsAt(spec, step);
  const { total, ...losses } = result.losses;
  return {
    step,
    generation: active.generation,
    workers: active.members.length,
    loss: total,
    losses,
    gradNorm: result.gradNorm,
    lr: scalars.learningRate,
    weightDecay: scalars.weightDecay,
    momentum: scalars.momentum,
    teacherTemp: scalars.teacherTemperature,
    lossScale: scaler.scale,
    skipped: !result.finite,
    ...(offender ? { offender } : {}),
    ...(dataStep === step ? {} : { dataStep }),
    images: result.images,
    seconds: result.seconds,
    ...(result.monitor ? { monitor: result.monitor } : {}),
    unixMs: turn.now,
  };
}
