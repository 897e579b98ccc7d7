/** Who executes the run: workers come, go, hang and fail; each change of members is a new generation. */
import { type ErrorCode, isErrorCode, PaddockError } from "@paddock/contract";
import type { Assignment, Failed } from "@paddock/proto";
import { segmentAt } from "../plan/plan-run.js";
import { restartStep } from "./durable.js";
import { fail, finish, interrupt } from "./ending.js";
import type { Effect } from "./event.js";
import { keptSteps } from "./guards/plan.js";
import {
  type ActiveGeneration,
  evaluationDue,
  type RunState,
  targetWorkers,
  type WorkerId,
  type WorkerInfo,
} from "./state.js";
import { abortGeneration, append, log, refuseStale, send, type Turn, update } from "./turn.js";

/** Generations in a row without one decided step, after which the run has failed. */
const maxBarren = 8;

export function join(turn: Turn, info: WorkerInfo): void {
  const { state, now } = turn;
  if (state.outcome) {
    const shutdown = { finished: state.outcome.kind === "finished", reason: state.outcome.kind };
    send(turn, info.id, { kind: "shutdown", shutdown });
    turn.effects.push({ kind: "dismiss", id: info.id, reason: "the run has ended" });
    return;
  }
  const worker = {
    ...info,
    step: state.durable.next,
    phase: "",
    lastProgressMs: now,
    stateBytes: 0,
    peakGatheredBytes: 0,
    eventLoopP99Ms: 0,
    badImages: 0,
    deviceAllocatedBytes: 0,
    devicePeakBytes: 0,
    deviceReservedBytes: 0,
  };
  update(turn, { workers: [...state.workers, worker] });
  log(turn, "info", "worker joined", { worker: info.name, host: info.host, pid: info.pid });
  startIfPossible(turn);
}

/** The worker's stream ended. */
export function leave(turn: Turn, id: WorkerId, reason: string): void {
  const worker = turn.state.workers.find((known) => known.id === id);
  if (!worker) return;
  update(turn, { workers: turn.state.workers.filter((known) => known.id !== id) });
  const { active } = turn.state;
  const index = active?.members.indexOf(id) ?? -1;
  const isMissed = active !== null && index >= 0 && !(active.stopping && !owes(active, index));
  log(turn, isMissed ? "warn" : "info", "worker gone", { worker: worker.name, reason });
  if (isMissed) lose(turn, "worker-lost", `worker ${worker.name} is gone: ${reason}`);
}

/**
 * A worker says that it cannot go on. What no retry can cure ends the run, except in a newcomer to a run that has
 * already worked with others; all else ends the generation.
 */
export function workerFailed(turn: Turn, id: WorkerId, failure: Failed): void {
  const { active, workers } = turn.state;
  const worker = workers.find((known) => known.id === id);
  const isCurrent = failure.generation === 0 || failure.generation === active?.generation;
  if (!worker || !isCurrent) {
    refuseStale(turn);
    return;
  }
  const code = isErrorCode(failure.code) ? failure.code : "internal";
  const reason = `worker ${worker.name} in step ${failure.step}: ${failure.message}`;
  log(turn, "warn", "worker failed", { worker: worker.name, code, reason });
  const isHopeless = new PaddockError(code, reason).retry === "never";
  if (failure.generation !== 0) {
    if (isHopeless) fail(turn, code, reason);
    else lose(turn, code, reason);
  } else if (isHopeless && turn.state.firstStartMs === null) {
    fail(turn, code, reason);
  } else {
    // The run works without it: a newcomer that cannot start is its own problem.
    turn.effects.push({ kind: "dismiss", id, code, reason });
  }
}

/** Looks at the leases of those who owe something, and at the waits that are over. */
export function checkTime(turn: Turn): void {
  for (const id of expired(turn.state, turn.now)) {
    const worker = turn.state.workers.find((known) => known.id === id);
    const seconds = turn.state.durable.spec.fleet.leaseSeconds;
    const reason = `no progress for ${seconds} s (last phase: "${worker?.phase || "none"}")`;
    turn.effects.push({ kind: "dismiss", id, code: "lease-lost", reason });
    leave(turn, id, reason);
  }
  startIfPossible(turn);
}

/** Starts the next generation, or ends a run that has nothing left to do. */
export function startIfPossible(turn: Turn): void {
  const { active, outcome, orphans, durable, draining, waiting, wanted } = turn.state;
  if (active || outcome || orphans.length > 0) return;
  if (restartStep(durable) >= durable.spec.steps) {
    finish(turn);
    return;
  }
  if (draining !== null) {
    interrupt(turn, draining);
    return;
  }
  const workers = targetWorkers(turn.state);
  const isEnough = workers === wanted || (workers > 0 && turn.now >= waiting.fewerFromMs);
  if (isEnough && turn.now >= waiting.notBeforeMs) startGeneration(turn, workers);
}

/** Replaces the generation by one of another size, from the checkpoint that has just become durable. */
export function regroup(turn: Turn): void {
  const { active, wanted } = turn.state;
  const reason = `from ${active?.members.length} to ${targetWorkers(turn.state)} of ${wanted} workers`;
  abortGeneration(turn);
  const { now } = turn;
  update(turn, { waiting: { reason, sinceMs: now, notBeforeMs: now, fewerFromMs: now } });
  startIfPossible(turn);
}

/** Whether the member must show progress: it is not waiting for a decision. */
export function owes(active: ActiveGeneration, index: number): boolean {
  if (!active.stopping) return active.prepared[index] === null;
  return (
    active.pendingCheckpoints.some(({ files }) => files[index] === null) ||
    (index === 0 && active.pendingEvaluations.length > 0)
  );
}

/**
 * Members whose lease is over. A worker whose peer is slow waits for it without progress of its own: so nobody is
 * expelled while somebody else who owes something still moves, and the one that stopped first is expelled first.
 */
function expired({ active, workers, durable }: RunState, now: number): WorkerId[] {
  if (!active) return [];
  const owing = workers.filter(({ id }) => {
    const index = active.members.indexOf(id);
    return index >= 0 && owes(active, index);
  });
  const leaseMs = durable.spec.fleet.leaseSeconds * 1000;
  const newest = Math.max(...owing.map((worker) => worker.lastProgressMs));
  if (now - newest <= leaseMs / 2) return [];
  return owing.filter((worker) => now - worker.lastProgressMs > leaseMs).map(({ id }) => id);
}

/** The generation is over against its will: back to the last checkpoint, with those who are left or come in time. */
function lose(turn: Turn, code: ErrorCode, reason: string): void {
  const { active, draining, durable } = turn.state;
  if (!active) return;
  const barren = active.commits === 0 ? turn.state.barren + 1 : 0;
  abortGeneration(turn);
  if (barren >= maxBarren) {
    fail(
      turn,
      code,
      `${barren} generations in a row ended without a step; the last one: ${reason}`,
    );
    return;
  }
  const { now } = turn;
  const { generation, pendingCheckpoints } = active;
  const orphans = pendingCheckpoints.filter(({ complete }) => complete);
  update(turn, {
    orphans: orphans.map((pending) => ({ ...pending, generation })),
    barren,
    lastFailure: { code, reason },
    draining: draining === null ? null : `${draining}; not drained: ${reason}`,
    waiting: {
      reason,
      sinceMs: now,
      notBeforeMs: now + (barren > 0 ? Math.min(10_000, 250 * 2 ** barren) : 0),
      fewerFromMs: now + durable.spec.fleet.leaseSeconds * 1000,
    },
  });
  startIfPossible(turn);
}

function startGeneration(turn: Turn, count: number): void {
  const { durable, waiting } = turn.state;
  const generation = durable.generation + 1;
  const step = restartStep(durable);
  append(turn, {
    kind: "generation",
    generation,
    workers: count,
    step,
    reason: waiting.reason,
    unixMs: turn.now,
  });
  const evaluateFirst =
    evaluationDue(durable.spec, step) && !durable.evaluations.some((done) => done.step === step);
  const active: ActiveGeneration = {
    generation,
    members: turn.state.workers.slice(0, count).map(({ id }) => id),
    startStep: step,
    startMs: turn.now,
    prepared: Array.from({ length: count }, () => null),
    pendingCheckpoints: [],
    pendingEvaluations: evaluateFirst ? [step] : [],
    regroupAt: null,
    stopping: false,
    commits: 0,
  };
  update(turn, {
    active,
    recent: [],
    engine: [...new Set(turn.state.workers.slice(0, count).map(({ engine }) => engine))].join(","),
    firstStartMs: turn.state.firstStartMs ?? turn.now,
    workers: turn.state.workers.map((worker) => ({
      ...worker,
      step,
      phase: active.members.includes(worker.id) ? "start" : "",
      lastProgressMs: turn.now,
    })),
  });
  turn.effects.push({ kind: "truncate-steps", step });
  turn.effects.push({ kind: "keep-checkpoints", steps: keptCheckpoints(turn.state) });
  turn.effects.push(segmentsEffect(turn.state, active, step));
  for (const [worker, id] of active.members.entries()) {
    send(turn, id, { kind: "assignment", assignment: assignmentOf(turn.state, active, worker) });
  }
  log(turn, "info", "generation started", {
    generation,
    workers: count,
    step,
    reason: waiting.reason,
  });
}

/** Steps of the checkpoints that stay on disk: durable ones (`keptSteps`), and those being written. */
export function keptCheckpoints({ durable, active }: RunState): number[] {
  const pending = (active?.pendingCheckpoints ?? []).map(({ step }) => step);
  return [...keptSteps(durable), ...pending];
}

/** The segment that holds `step` and the one after it: jobs are made as they come near. */
export function segmentsEffect(state: RunState, active: ActiveGeneration, step: number): Effect {
  const { spec } = state.durable;
  const current = segmentAt(spec, active.startStep, step);
  const next = current.end < spec.steps ? [segmentAt(spec, active.startStep, current.end)] : [];
  return {
    kind: "segments",
    generation: active.generation,
    workers: active.members.length,
    segments: [current, ...next],
  };
}

/** Name of the BullMQ queue with one worker's segment jobs. */
export function segmentQueueName(runId: string, generation: number, worker: number): string {
  return `paddock-${runId}-g${generation}-w${worker}`;
}

function assignmentOf(state: RunState, active: ActiveGeneration, worker: number): Assignment {
  const { durable } = state;
  const { generation, members, startStep } = active;
  return {
    generation,
    worker,
    workers: members.length,
    startStep,
    loadCheckpoint: durable.checkpoints.some(({ step }) => step === startStep),
    peers: members.map((id, index) => {
      const peer = state.workers.find((known) => known.id === id);
      return {
        worker: index,
        workerName: peer?.name ?? "",
        peerAddress: peer?.peerAddress ?? "",
      };
    }),
    scale: durable.scaler.scale,
    goodSteps: durable.scaler.goodSteps,
    segmentQueue: segmentQueueName(durable.runId, generation, worker),
    evaluateFirst: active.pendingEvaluations.includes(startStep),
    manifestSha256: durable.checkpoints.find(({ step }) => step === startStep)?.manifest ?? "",
    live: null,
    shadow: -1,
    leftOut: durable.leftOut,
  };
}
