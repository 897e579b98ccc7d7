/** Who executes the run: workers come, go, hang and fail; each change of members is a new generation. */
import { type ErrorCode, isErrorCode, PaddockError } from "@paddock/contract";
import type { Assignment, Failed, LiveSource } from "@paddock/proto";
import { segmentAt } from "../plan/plan-run.js";
import { countsOf, cutsFor, rebalanceDue } from "./balance.js";
import { coverOf } from "./cover.js";
import { restartStep } from "./durable.js";
import { fail, finish, interrupt } from "./ending.js";
import type { Effect } from "./event.js";
import { goBackIfOwed } from "./guards/roll-back.js";
import { letLeaversGo, tellMissed } from "./holdings.js";
import { expired, owes, restless } from "./leases.js";
import {
  type ActiveGeneration,
  candidates,
  evaluationDue,
  membersChange,
  type RunState,
  type WorkerId,
  type WorkerInfo,
} from "./state.js";
import {
  abortGeneration,
  append,
  log,
  refuseStale,
  send,
  type Turn,
  update,
  updateActive,
} from "./turn.js";

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
    owesHeld: null,
    leaving: null,
    waitingOn: [],
    step: state.durable.next,
    phase: "",
    lastProgressMs: now,
    stateBytes: 0,
    peakGatheredBytes: 0,
    eventLoopP99Ms: 0,
    badImages: 0,
    paces: [],
    deviceAllocatedBytes: 0,
    devicePeakBytes: 0,
    deviceReservedBytes: 0,
  };
  update(turn, { workers: [...state.workers, worker] });
  log(turn, "info", "worker joined", { worker: info.name, host: info.host, pid: info.pid });
  tellMissed(turn, info.id);
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
  else startIfPossible(turn);
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
  for (const id of [...restless(turn.state, turn.now), ...expired(turn.state, turn.now)]) {
    const worker = turn.state.workers.find((known) => known.id === id);
    const seconds = turn.state.durable.spec.fleet.leaseSeconds;
    const reason = `no progress for ${seconds} s (last phase: "${worker?.phase || "none"}")`;
    turn.effects.push({ kind: "dismiss", id, code: "lease-lost", reason });
    leave(turn, id, reason);
  }
  startIfPossible(turn);
}

/**
 * Starts the next generation, or ends a run that has nothing left to do: from the state that the workers hold, if they hold all of it,
 * else from the last checkpoint.
 */
export function startIfPossible(turn: Turn): void {
  const { active, outcome, draining, workers } = turn.state;
  if (active || outcome || workers.some(({ owesHeld }) => owesHeld !== null)) return;
  goBackIfOwed(turn);
  const { durable, orphans } = turn.state;
  const live = coverOf(turn.state);
  if (!live && orphans.length > 0) return;
  if (restartStep(durable) >= durable.spec.steps) {
    finish(turn);
    return;
  }
  const isAhead = live !== null && durable.next > restartStep(durable);
  if (draining !== null && !isAhead) {
    interrupt(turn, draining);
    return;
  }
  if (candidates(turn.state).length > 0) {
    if (mayStart(turn, live !== null)) startGeneration(turn, live);
    return;
  }
  // Leavers that hold what no checkpoint has stay as long as others may come to take it over.
  const areNeeded = isAhead && turn.now < turn.state.waiting.fewerFromMs;
  if (!areNeeded) letLeaversGo(turn);
}

function mayStart({ state, now }: Turn, isCovered: boolean): boolean {
  const { waiting, wanted } = state;
  const { length } = candidates(state);
  if (now < waiting.notBeforeMs) return false;
  if (length === wanted || now >= waiting.fewerFromMs) return true;
  return isCovered && now >= waiting.fewerHoldersFromMs;
}

/** At a step boundary at which other members or cuts are due: replaces the generation, once the checkpoints and evaluations that it owes are there. */
export function regroupIfDue(turn: Turn): void {
  const { active } = turn.state;
  if (!active || active.regroupAt === null) return;
  if (active.pendingCheckpoints.length > 0 || active.pendingEvaluations.length > 0) return;
  updateActive(turn, { regroupAt: null });
  const reason = regroupReason(turn.state, active);
  if (reason === undefined) return;
  abortGeneration(turn);
  const { now } = turn;
  update(turn, {
    waiting: {
      reason,
      sinceMs: now,
      notBeforeMs: now,
      fewerFromMs: now,
      fewerHoldersFromMs: now,
    },
  });
  startIfPossible(turn);
}

function regroupReason(state: RunState, active: ActiveGeneration): string | undefined {
  const next = candidates(state);
  if (membersChange(state, active)) {
    return `from ${active.members.length} to ${next.length} of ${state.wanted} workers`;
  }
  if (!rebalanceDue(state)) return undefined;
  return `${countsOf(cutsFor(state, next))} logical ranks instead of ${countsOf(active.cuts)}: workers differ in speed`;
}

/** The generation is over against its will: on with those who are left, or back to the last checkpoint. */
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
      fewerHoldersFromMs: now,
    },
  });
  startIfPossible(turn);
}

/** @param live who holds the state of `durable.next`; null: the last checkpoint is loaded */
function startGeneration(turn: Turn, live: LiveSource | null): void {
  const { durable, waiting, draining } = turn.state;
  const generation = durable.generation + 1;
  const step = live ? durable.next : restartStep(durable);
  const members = candidates(turn.state).map(({ id }) => id);
  const cuts = cutsFor(turn.state, candidates(turn.state));
  append(turn, {
    kind: "generation",
    generation,
    workers: members.length,
    cuts,
    step,
    reason: waiting.reason,
    unixMs: turn.now,
  });
  const active = beginning(turn, { generation, members, cuts, step, stopping: draining !== null });
  update(turn, {
    active,
    recent: [],
    engine: [...new Set(candidates(turn.state).map(({ engine }) => engine))].join(","),
    firstStartMs: turn.state.firstStartMs ?? turn.now,
    workers: turn.state.workers.map((worker) => ({
      ...worker,
      step,
      phase: members.includes(worker.id) ? "start" : "",
      waitingOn: [],
      lastProgressMs: turn.now,
    })),
  });
  turn.effects.push({ kind: "truncate-steps", step });
  turn.effects.push({ kind: "keep-checkpoints", steps: keptCheckpoints(turn.state) });
  turn.effects.push(segmentsEffect(turn.state, active, step));
  for (const [worker, id] of members.entries()) {
    const assignment = assignmentOf(turn.state, active, { worker, live });
    send(turn, id, { kind: "assignment", assignment });
  }
  log(turn, "info", "generation started", {
    generation,
    workers: members.length,
    ranks: countsOf(cuts),
    step,
    from: live ? "the workers" : "the checkpoint",
    reason: waiting.reason,
  });
}

/** A generation before its first step. What was due at its start and is missing comes first. */
function beginning(
  { state, now }: Turn,
  start: Pick<ActiveGeneration, "generation" | "members" | "cuts" | "stopping"> & {
    readonly step: number;
  },
): ActiveGeneration {
  const { generation, members, cuts, step } = start;
  const { durable } = state;
  const { spec, scaler } = durable;
  const stopping = start.stopping || step >= spec.steps;
  const behind = step - restartStep(durable);
  const checkpointFirst = behind > 0 && (stopping || behind >= spec.checkpoint.everySteps);
  const evaluateFirst =
    evaluationDue(spec, step) && !durable.evaluations.some((done) => done.step === step);
  const files = members.map(() => null);
  const pending = { step, files, complete: false, scaler, sinceMs: now };
  return {
    generation,
    members,
    cuts,
    startStep: step,
    startMs: now,
    prepared: members.map(() => null),
    pendingCheckpoints: checkpointFirst ? [pending] : [],
    pendingEvaluations: evaluateFirst ? [step] : [],
    regroupAt: null,
    stopping,
    commits: 0,
    unevenSteps: 0,
  };
}

/** Steps of the checkpoints that stay on disk: durable ones, and those being written. */
export function keptCheckpoints({ durable, active, orphans }: RunState): number[] {
  const pending = [...orphans, ...(active?.pendingCheckpoints ?? [])];
  return [...durable.kept, ...pending.map(({ step }) => step)];
}

/** The segment that holds `step` and the one after it: jobs are made as they come near. */
export function segmentsEffect(state: RunState, active: ActiveGeneration, step: number): Effect {
  const { spec } = state.durable;
  const { generation, members, startStep } = active;
  const workers = members.length;
  if (active.stopping) return { kind: "segments", generation, workers, segments: [] };
  const current = segmentAt(spec, startStep, step);
  const next = current.end < spec.steps ? [segmentAt(spec, startStep, current.end)] : [];
  return { kind: "segments", generation, workers, segments: [current, ...next] };
}

/** Name of the BullMQ queue with one worker's segment jobs. */
export function segmentQueueName(runId: string, generation: number, worker: number): string {
  return `paddock-${runId}-g${generation}-w${worker}`;
}

function assignmentOf(
  state: RunState,
  active: ActiveGeneration,
  { worker, live }: { readonly worker: number; readonly live: LiveSource | null },
): Assignment {
  const { durable } = state;
  const { generation, members, startStep } = active;
  const { length: workers } = members;
  const checkpoint = durable.checkpoints.find(({ step }) => step === startStep);
  const isShadowed = durable.spec.fleet.redundancy === "shadow" && workers > 1;
  return {
    generation,
    worker,
    workers,
    startStep,
    loadCheckpoint: live === null && checkpoint !== undefined,
    manifestSha256: live === null ? (checkpoint?.manifest ?? "") : "",
    live,
    shadow: isShadowed ? (worker + workers - 1) % workers : -1,
    rankCuts: active.cuts,
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
    checkpointFirst: active.pendingCheckpoints.some(({ step }) => step === startStep),
    leftOut: durable.leftOut,
  };
}
