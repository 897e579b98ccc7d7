/** Why a run does not go on at this moment: whom it waits for, until when, and what comes next. Pure. */
import type { Blocker, Diagnosis } from "@paddock/proto";
import { owes } from "../run/leases.js";
import {
  type ActiveGeneration,
  candidates,
  type RunState,
  type WorkerState,
} from "../run/state.js";

export interface DiskFull {
  /** Unix milliseconds. */
  readonly sinceMs: number;
  /** What could not be written, and how to make room. */
  readonly reason: string;
}

/** What a run depends on and does not decide. */
export interface Outside {
  /** Since when Redis does not answer, in unix milliseconds; null: it does. */
  readonly redisAwaySinceMs: number | null;
  /** null: there is room. */
  readonly diskFull: DiskFull | null;
}

export const allIsWell: Outside = { redisAwaySinceMs: null, diskFull: null };

/** @param now unix milliseconds */
export function diagnose(
  state: RunState,
  now: number,
  { redisAwaySinceMs, diskFull }: Outside,
): Diagnosis {
  const { outcome, paused, active } = state;
  if (outcome) return quiet(`the run is over: ${outcome.kind}`, "nothing");
  if (diskFull) return noRoom(diskFull);
  if (redisAwaySinceMs !== null) return redisAway(state, redisAwaySinceMs);
  if (!active) return between(state, now);
  const blockers = culprits(state, active).map((worker) => blockerOf(state, active, worker));
  if (blockers.length > 0) return waiting(state, blockers);
  if (paused) {
    const user = { ...nobody, kind: "user", owes: "to let it go on" };
    const diagnosis = quiet("somebody paused the run", "none by itself: paddock unpause");
    return { ...diagnosis, blockers: [user], needsHelp: true };
  }
  const saving = active.pendingCheckpoints.find(({ complete }) => complete);
  if (saving && (active.stopping || active.regroupAt !== null)) {
    const owesIt = `the manifest of checkpoint ${saving.step}`;
    const blockers = [{ ...nobody, kind: "coordinator", owes: owesIt }];
    return { ...quiet(`the coordinator writes ${owesIt}`, afterwards(active)), blockers };
  }
  return quiet("it goes on", "the next step");
}

const nobody: Blocker = {
  kind: "",
  name: "",
  owes: "",
  step: 0,
  phase: "",
  lastProgressUnixMs: 0,
  deadlineUnixMs: 0,
};

function quiet(reason: string, nextAction: string): Diagnosis {
  return { reason, blockers: [], nextAction, nextActionUnixMs: 0, needsHelp: false };
}

function afterwards({ stopping, regroupAt }: ActiveGeneration): string {
  if (stopping) return "the run ends";
  return regroupAt === null ? "the next step" : "another generation, with other members";
}

/** Who owes something and does not itself wait for another who does; if all wait for each other, all of them. */
function culprits({ workers }: RunState, active: ActiveGeneration): WorkerState[] {
  const indexOf = ({ id }: WorkerState): number => active.members.indexOf(id);
  const isOwing = (index: number): boolean => index >= 0 && owes(active, index);
  const owing = workers.filter((worker) => isOwing(indexOf(worker)));
  const own = owing.filter(({ waitingOn }) => !waitingOn.some(isOwing));
  return own.length > 0 ? own : owing;
}

function blockerOf(state: RunState, active: ActiveGeneration, worker: WorkerState): Blocker {
  const { name, step, phase, lastProgressMs } = worker;
  const leaseMs = state.durable.spec.fleet.leaseSeconds * 1000;
  return {
    kind: "worker",
    name,
    owes: owedBy(state, active, active.members.indexOf(worker.id)),
    step,
    phase,
    lastProgressUnixMs: Math.round(lastProgressMs),
    deadlineUnixMs: Math.round(lastProgressMs + leaseMs),
  };
}

function owedBy({ durable }: RunState, active: ActiveGeneration, index: number): string {
  if (!active.stopping) return `the gradient of step ${durable.next}`;
  const pending = active.pendingCheckpoints.find(({ files }) => files[index] === null);
  if (pending) return `its file of checkpoint ${pending.step}`;
  return `the evaluation of step ${active.pendingEvaluations[0] ?? durable.next}`;
}

function waiting(state: RunState, blockers: readonly Blocker[]): Diagnosis {
  const names = blockers.map(({ name }) => name).join(", ");
  const [first] = blockers;
  const deadline = Math.min(...blockers.map(({ deadlineUnixMs }) => deadlineUnixMs));
  return {
    reason: `${first?.owes ?? ""} is awaited from ${names}`,
    blockers: [...blockers],
    nextAction: `at the end of its lease it is expelled; ${afterLoss(state)}`,
    nextActionUnixMs: deadline,
    needsHelp: false,
  };
}

/** What follows if a member is lost. */
function afterLoss({ durable, active }: RunState): string {
  const isShadowed =
    durable.spec.fleet.redundancy === "shadow" && (active?.members.length ?? 0) > 1;
  if (isShadowed) return `the others go on from step ${durable.next}`;
  const step = durable.checkpoints.at(-1)?.step ?? durable.start.step;
  return `the run goes back to step ${step}, its last checkpoint`;
}

/** No generation is in force. */
function between(state: RunState, now: number): Diagnosis {
  const { workers, waiting, wanted, durable } = state;
  const leaseMs = durable.spec.fleet.leaseSeconds * 1000;
  const restless = workers.filter(({ owesHeld }) => owesHeld !== null);
  if (restless.length > 0) {
    const blockers = restless.map(({ name, step, phase, lastProgressMs }) => ({
      kind: "worker",
      name,
      owes: "to come to rest and say what it holds",
      step,
      phase,
      lastProgressUnixMs: Math.round(lastProgressMs),
      deadlineUnixMs: Math.round(lastProgressMs + leaseMs),
    }));
    const next = "at the end of its lease it is expelled; then the next generation starts";
    const deadline = Math.min(...blockers.map(({ deadlineUnixMs }) => deadlineUnixMs));
    const reason = `the last generation ended (${waiting.reason}); ${blockers.map(({ name }) => name).join(", ")} has not come to rest`;
    return { ...quiet(reason, next), blockers, nextActionUnixMs: deadline };
  }
  const here = candidates(state).length;
  if (here >= wanted && now < waiting.notBeforeMs) {
    const next = "another generation";
    const reason = `a pause after a failure: ${waiting.reason}`;
    return { ...quiet(reason, next), nextActionUnixMs: Math.round(waiting.notBeforeMs) };
  }
  return missing(state, here);
}

function missing({ wanted, waiting }: RunState, here: number): Diagnosis {
  const owes = `${wanted - here} more of ${wanted} workers`;
  const blockers = [{ ...nobody, kind: "user", owes }];
  const reason = `it waits for ${owes} (${waiting.reason})`;
  if (here === 0 || !Number.isFinite(waiting.fewerFromMs)) {
    const next = "none by itself: start workers with paddock worker --coordinator HOST:PORT";
    return { ...quiet(reason, next), blockers, needsHelp: true };
  }
  const next = `it goes on with ${here}`;
  return { ...quiet(reason, next), blockers, nextActionUnixMs: Math.round(waiting.fewerFromMs) };
}

function noRoom({ sinceMs, reason }: DiskFull): Diagnosis {
  const room = { ...nobody, kind: "user", owes: "room on the disk", lastProgressUnixMs: sinceMs };
  return {
    reason: `the disk is full: ${reason}`,
    blockers: [room],
    nextAction: "none by itself: make room; it is tried again every second",
    nextActionUnixMs: 0,
    needsHelp: true,
  };
}

function redisAway({ durable }: RunState, sinceMs: number): Diagnosis {
  const { timeoutSeconds } = durable.spec.exchange;
  const redis = { ...nobody, kind: "redis", owes: "an answer", lastProgressUnixMs: sinceMs };
  return {
    reason: "Redis does not answer",
    blockers: [redis],
    nextAction: `when it answers again, the exchange of step ${durable.next} is repeated; workers give up after ${timeoutSeconds} s and try again`,
    nextActionUnixMs: Math.round(sinceMs + timeoutSeconds * 1000),
    needsHelp: false,
  };
}
