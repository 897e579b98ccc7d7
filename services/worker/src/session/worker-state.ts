/**
 * The worker's mind: `decideWorker(state, event)` says what the session becomes and what is to be done. Pure: no I/O, no clock.
 *
 *   load -> (evaluate) -> compute -> Prepared -> Decision -> apply -> (checkpoint) (evaluate) -> compute ...
 *
 * until a decision says stop or the generation is ended. Then everything comes to rest, and what is held at rest is told:
 * in Hello after a broken stream, in Held after ABORT. Nothing is told, and no connection is opened, before all is at rest.
 *
 * A worker that prepared the first step of a generation and then lost its stream cannot know whether that step was
 * committed. It keeps those shards and the holding that they were loaded from, and tells of the former; the coordinator
 * answers with the Decision, or with ABORT where there is none: the worker then falls back to the older holding.
 */
import { PaddockError } from "@paddock/contract";
import {
  type Assignment,
  type CoordinatorMessage,
  type Decision,
  DecisionKind,
  type Welcome,
} from "@paddock/proto";
import type { WorkerEffect, WorkerEvent, WorkerState, WorkerTurn } from "./worker-event.js";
import {
  endGeneration,
  holdingOf,
  isQuiet,
  patchCurrent,
  proceed,
  settle,
  toRest,
} from "./worker-generation.js";

type Of<Kind extends WorkerEvent["kind"]> = Extract<WorkerEvent, { kind: Kind }>;

const firstBackoffMs = 100;
const longestBackoffMs = 2_000;

/** The new state and the effects, in the order in which they are to be carried out. */
export function decideWorker(
  state: WorkerState,
  event: WorkerEvent,
): { readonly state: WorkerState; readonly effects: readonly WorkerEffect[] } {
  const turn: WorkerTurn = { state, effects: [] };
  if (!state.ended) {
    handle(turn, event);
    settle(turn);
    reconnectIfQuiet(turn);
  }
  return turn;
}

function handle(turn: WorkerTurn, event: WorkerEvent): void {
  switch (event.kind) {
    case "connected":
      connected(turn);
      break;
    case "disconnected":
      disconnected(turn, event);
      break;
    case "message":
      // What a broken stream still delivers is void.
      if (turn.state.link === "up") hear(turn, event.message);
      return;
    case "leave":
      leave(turn, event.reason);
      break;
    case "failed":
      failed(turn, event);
      break;
    default:
      if (event.generation === turn.state.current?.assignment.generation) completed(turn, event);
  }
}

function connected(turn: WorkerTurn): void {
  const { state } = turn;
  if (state.link !== "connecting") return;
  turn.state = { ...state, link: "up" };
  const hello = { ...state.facts.hello, holding: holdingOf(state) };
  turn.effects.push({ kind: "send", message: { kind: "hello", hello } });
  if (state.leaving !== null) sendLeave(turn, state.leaving);
}

function disconnected(turn: WorkerTurn, { code, reason, awayMs }: Of<"disconnected">): void {
  const { state } = turn;
  if (state.link === "down") return;
  // A coordinator that has not yet noticed the end of the old stream still knows this worker's name.
  const isOwnName = code === "already-exists" && state.isKnown;
  const isHopeless = new PaddockError(code, reason).retry === "never" && !isOwnName;
  if (isHopeless || awayMs >= state.facts.reconnectMs) {
    die(turn, code, reason);
    return;
  }
  // What that stream asked for is void.
  const isKnown = state.isKnown || state.link === "up";
  turn.state = { ...state, link: "down", isKnown, owesHeld: false, next: null };
  endGeneration(turn);
}

/** Says Hello only when nothing runs: what it tells of the holding is then true. */
function reconnectIfQuiet(turn: WorkerTurn): void {
  const { state } = turn;
  if (state.ended || state.link !== "down" || !isQuiet(state)) return;
  if (state.leaving !== null && holdingOf(state) === null) {
    end(turn, false, state.leaving);
    return;
  }
  const afterMs = Math.min(longestBackoffMs, firstBackoffMs * 2 ** state.attempts);
  turn.state = { ...state, link: "connecting", attempts: state.attempts + 1 };
  turn.effects.push({ kind: "connect", afterMs });
}

function hear(turn: WorkerTurn, message: CoordinatorMessage): void {
  switch (message.kind) {
    case "welcome":
      welcomed(turn, message.welcome);
      break;
    case "assignment":
      assigned(turn, message.assignment);
      break;
    case "decision":
      if (message.decision.kind === DecisionKind.DECISION_KIND_ABORT) {
        aborted(turn, message.decision.generation);
      } else decided(turn, message.decision);
      return;
    case "shutdown":
      shutDown(turn, message.shutdown);
      break;
    default:
      // A drain shows in the decisions; kinds of a newer minor version are ignored.
      return;
  }
}

function welcomed(turn: WorkerTurn, welcome: Welcome): void {
  const { welcome: before } = turn.state;
  turn.state = { ...turn.state, welcome, attempts: 0 };
  if (before !== null && before.runId !== welcome.runId) forgetAll(turn);
  const isKnown =
    before?.runId === welcome.runId &&
    before.specJson === welcome.specJson &&
    before.runDir === welcome.runDir &&
    before.redisUrl === welcome.redisUrl;
  if (!isKnown) turn.effects.push({ kind: "serve", welcome });
}

/** Another run's coordinator: it must not take what Hello told for a part of its run. */
function forgetAll(turn: WorkerTurn): void {
  endGeneration(turn);
  const { current, older, generation } = turn.state;
  const held = [current?.assignment.generation, older?.generation];
  for (const known of held) {
    if (known !== undefined) turn.effects.push({ kind: "forget", generation: known });
  }
  turn.state = { ...turn.state, current: null, older: null, generation: 0 };
  if (current || older) {
    turn.effects.push({
      kind: "send",
      message: { kind: "held", held: { generation, holding: null } },
    });
  }
}

function assigned(turn: WorkerTurn, assignment: Assignment): void {
  const { state } = turn;
  const newest = Math.max(state.generation, state.next?.generation ?? 0);
  if (assignment.generation <= newest) return;
  turn.state = { ...state, owesHeld: false, next: assignment };
  endGeneration(turn);
}

function aborted(turn: WorkerTurn, generation: number): void {
  if (turn.state.next?.generation === generation) {
    // It had not begun: what was there before it is at rest, or will be.
    turn.state = { ...turn.state, generation, next: null };
  } else if (generation !== turn.state.generation) return;
  turn.state = { ...turn.state, owesHeld: true };
  if (turn.state.current?.assignment.generation === generation) {
    patchCurrent(turn, { aborted: true });
  }
  endGeneration(turn);
}

/** Whether a generation runs or not: a prepared step is decided, once. */
function decided(turn: WorkerTurn, decision: Decision): void {
  const { current } = turn.state;
  if (
    current?.assignment.generation !== decision.generation ||
    current.step !== decision.step ||
    !current.prepared ||
    current.decision !== null
  ) {
    return;
  }
  // Every member has loaded, or none would have prepared all of it.
  forgetOlder(turn);
  patchCurrent(turn, { decision });
  if (current.mode === "running") {
    patchCurrent(turn, { activity: "apply" });
    turn.effects.push({ kind: "apply", decision, publish: true });
  } else {
    turn.state = { ...turn.state, owesHeld: true };
  }
}

function forgetOlder(turn: WorkerTurn): void {
  const { older } = turn.state;
  if (older === null) return;
  turn.effects.push({ kind: "forget", generation: older.generation });
  turn.state = { ...turn.state, older: null };
}

function shutDown(turn: WorkerTurn, shutdown: { finished: boolean; reason: string }): void {
  const { current } = turn.state;
  const draws = current?.mode === "running" && current.assignment.worker === 0;
  if (shutdown.finished && draws) turn.effects.push({ kind: "pictures" });
  sendGoodbye(turn, "the coordinator said shutdown");
  end(turn, shutdown.finished, shutdown.reason);
}

/** Works on until the coordinator lets it go; the second time, or with nobody to ask and nothing to keep, it goes at once. */
function leave(turn: WorkerTurn, reason: string): void {
  const { state } = turn;
  const isAlone = state.link !== "up" && isQuiet(state) && holdingOf(state) === null;
  if (state.leaving !== null || isAlone) {
    if (state.link === "up") sendGoodbye(turn, reason);
    end(turn, false, reason);
    return;
  }
  turn.state = { ...state, leaving: reason };
  if (state.link === "up") sendLeave(turn, reason);
}

/** A failure that a new generation can mend is the coordinator's to mend; any other ends this worker. */
function failed(turn: WorkerTurn, { generation, step, code, message }: Of<"failed">): void {
  const { current, link } = turn.state;
  if (generation !== 0 && generation !== current?.assignment.generation) return;
  const isRunning = generation === 0 || current?.mode === "running";
  const isApplying = generation !== 0 && current?.activity === "apply";
  // After an interruption errors are expected, except from an update: that needs nobody else.
  if (!isRunning && !isApplying) return;
  if (link === "up" && isRunning) {
    const failure = { generation, step, code, message };
    turn.effects.push({ kind: "send", message: { kind: "failed", failed: failure } });
  }
  if (generation === 0 || new PaddockError(code, message).retry !== "replan") {
    die(turn, code, message);
    return;
  }
  patchCurrent(turn, { activity: null, decision: null, broken: isApplying });
  if (current?.mode === "over") toRest(turn);
  else endGeneration(turn);
}

type Completion = Exclude<
  WorkerEvent,
  Of<"connected"> | Of<"disconnected"> | Of<"message"> | Of<"leave"> | Of<"failed">
>;

/** Something of the current generation is done. */
function completed(turn: WorkerTurn, event: Completion): void {
  const { current } = turn.state;
  if (!current) return;
  switch (event.kind) {
    case "loaded":
      if (current.mode !== "running" || current.activity !== "load") return;
      patchCurrent(turn, { activity: null });
      proceed(turn);
      break;
    case "segment":
      mayExecute(turn, event);
      break;
    case "prepared":
      prepared(turn, event);
      break;
    case "applied":
      if (current.activity === "apply" && current.step === event.step) applied(turn);
      return;
    case "evaluated":
      if (current.mode !== "running" || current.activity !== "evaluate") return;
      if (event.step !== current.step) return;
      patchCurrent(turn, { activity: null });
      proceed(turn);
      break;
    case "rested":
      if (current.mode === "ending") toRest(turn);
      return;
  }
}

/** A later segment allows the steps before it too: the job that names them may be lost, or come after it. */
function mayExecute(turn: WorkerTurn, { start, end }: Of<"segment">): void {
  const { current } = turn.state;
  if (current?.mode !== "running") return;
  const isKnown = current.jobs.some((job) => job.start === start && job.end === end);
  const jobs = isKnown ? current.jobs : [...current.jobs, { start, end }];
  patchCurrent(turn, { jobs, until: Math.max(current.until, end) });
  proceed(turn);
}

function prepared(turn: WorkerTurn, { generation, step, report }: Of<"prepared">): void {
  const { current } = turn.state;
  // Once interrupted, the step is not told of: nobody can have decided it.
  if (current?.mode !== "running" || current.activity !== "compute" || current.step !== step)
    return;
  patchCurrent(turn, { activity: null, prepared: true });
  const message = { generation, step, ...report };
  turn.effects.push({ kind: "send", message: { kind: "prepared", prepared: message } });
}

function applied(turn: WorkerTurn): void {
  const { current } = turn.state;
  const decision = current?.decision;
  if (!current || !decision) return;
  const step = decision.step + 1;
  patchCurrent(turn, {
    activity: null,
    decision: null,
    prepared: false,
    decided: true,
    step,
    scale: decision.scale,
  });
  if (current.mode !== "running") return;
  const { generation } = decision;
  if (decision.checkpoint) turn.effects.push({ kind: "checkpoint", generation, step });
  patchCurrent(turn, {
    evaluation: decision.evaluate ? { full: decision.stop } : null,
    stopped: decision.stop,
  });
  proceed(turn);
}

function sendLeave(turn: WorkerTurn, reason: string): void {
  turn.effects.push({ kind: "send", message: { kind: "leave", leave: { reason } } });
}

function sendGoodbye(turn: WorkerTurn, reason: string): void {
  turn.effects.push({ kind: "send", message: { kind: "goodbye", goodbye: { reason } } });
}

function end(turn: WorkerTurn, finished: boolean, reason: string): void {
  turn.state = { ...turn.state, ended: true };
  turn.effects.push({ kind: "end", finished, reason });
}

function die(turn: WorkerTurn, code: Of<"failed">["code"], message: string): void {
  turn.state = { ...turn.state, ended: true };
  turn.effects.push({ kind: "die", code, message });
}
