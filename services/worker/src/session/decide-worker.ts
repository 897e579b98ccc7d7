/**
 * A worker's session as a state machine: `decideWorker(state, event)` says what the state becomes and what is to be done. Pure, like the
 * coordinator's `decide`; `test/protocol` explores the two together.
 *
 *   (disconnected) -> hello -> spare -> loading -> [evaluating] -> computing <-> prepared <-> applying -> ... -> stopped
 *
 * A generation ends by ABORT or with the stream: then what runs is interrupted and the shards are held, at rest between two steps,
 * until the first decision of a later generation proves that everybody has what it needs.
 */
import { type ErrorCode, PaddockError } from "@paddock/contract";
import { type Assignment, DecisionKind, type Welcome } from "@paddock/proto";
import type { WorkerEvent } from "./worker-event.js";
import { aborted, begin, caughtUp, interrupt, rested, sayHello } from "./worker-rest.js";
import {
  forget,
  send,
  type Turn,
  update,
  updateRunning,
  type WorkerState,
} from "./worker-state.js";
import { afterStep, decided, goOn, granted, loaded, prepared } from "./worker-steps.js";

/** Before another try to reach the coordinator; doubled each time. */
const firstPauseMs = 100;
const longestPauseMs = 2_000;

/** The new state and the effects, in the order in which they are to be carried out. */
export function decideWorker(state: WorkerState, event: WorkerEvent): Turn {
  const turn: Turn = { state, effects: [] };
  if (!state.ended) handle(turn, event);
  return turn;
}

function handle(turn: Turn, event: WorkerEvent): void {
  switch (event.kind) {
    case "connected":
      update(turn, { connection: "open" });
      sayHello(turn);
      break;
    case "disconnected":
      disconnected(turn);
      break;
    case "message":
      hear(turn, event.message);
      break;
    case "applied":
      applied(turn, event);
      break;
    case "rested":
      rested(turn, event.generation);
      break;
    case "failed":
      failed(turn, event);
      break;
    case "leave":
      leave(turn, event.reason);
      break;
    default:
      inGeneration(turn, event);
  }
}

type InGeneration = Extract<WorkerEvent, { kind: "loaded" | "segment" | "prepared" | "evaluated" }>;

/** What concerns a generation that runs and is not ending. */
function inGeneration(turn: Turn, event: InGeneration): void {
  const { running } = turn.state;
  if (running?.ending !== "no" || running.assignment.generation !== event.generation) {
    return;
  }
  switch (event.kind) {
    case "loaded":
      if (running.phase === "loading") loaded(turn, running);
      break;
    case "segment":
      granted(turn, running, event);
      break;
    case "prepared":
      if (running.phase === "computing" && running.step === event.step) prepared(turn, event);
      break;
    case "evaluated":
      if (running.phase === "evaluating" && running.step === event.step) goOn(turn);
      break;
  }
}

function hear(turn: Turn, message: Extract<WorkerEvent, { kind: "message" }>["message"]): void {
  update(turn, { attempts: 0 });
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
      break;
    case "shutdown":
      shutDown(turn, message.shutdown);
      break;
    default:
      // A drain shows in the decisions; kinds of a newer minor version are ignored.
      break;
  }
}

function disconnected(turn: Turn): void {
  const { attempts, running, leaving } = turn.state;
  if (leaving !== null) {
    end(turn, false, leaving);
    return;
  }
  update(turn, { connection: "closed", attempts: attempts + 1, next: null });
  if (running) interrupt(turn, running, "silently");
  const afterMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(attempts, 10));
  turn.effects.push({ kind: "connect", afterMs });
}

function welcomed(turn: Turn, welcome: Welcome): void {
  if (welcome.runId === turn.state.runId) return;
  for (const { generation } of turn.state.holdings) forget(turn, generation);
  const { steps } = JSON.parse(welcome.specJson) as { steps: number };
  update(turn, { runId: welcome.runId, steps, newest: 0, holdings: [] });
  turn.effects.push({ kind: "serve", welcome });
}

function assigned(turn: Turn, assignment: Assignment): void {
  const { running, catchingUp, newest } = turn.state;
  if (assignment.generation <= newest) return;
  if (catchingUp || running) {
    update(turn, { next: assignment });
    if (running) interrupt(turn, running, "silently");
  } else begin(turn, assignment);
}

function applied(turn: Turn, { generation, step }: { generation: number; step: number }): void {
  const { running, catchingUp } = turn.state;
  if (catchingUp?.generation === generation && catchingUp.step === step) caughtUp(turn, catchingUp);
  if (running?.assignment.generation !== generation || running.phase !== "applying") return;
  const { decision } = running;
  if (decision?.step !== step) return;
  updateRunning(turn, {
    step: step + 1,
    scale: decision.scale,
    decided: running.decided + 1,
    phase: "waiting",
  });
  if (running.ending === "no") afterStep(turn, decision);
}

function failed(
  turn: Turn,
  { generation, step, code, message }: Extract<WorkerEvent, { kind: "failed" }>,
): void {
  const { running, catchingUp } = turn.state;
  const isRunning = running?.ending === "no" && running.assignment.generation === generation;
  const isCatchingUp = catchingUp?.generation === generation;
  if (generation !== 0 && !isRunning && !isCatchingUp) return;
  send(turn, { kind: "failed", failed: { generation, step, code, message } });
  if (isRunning && isMendable(code)) updateRunning(turn, { phase: "failed" });
  else {
    update(turn, { ended: true });
    turn.effects.push({ kind: "die", code, message });
  }
}

/** Whether a new generation can go on where this one failed. */
function isMendable(code: ErrorCode): boolean {
  return new PaddockError(code, "").retry === "replan";
}

function leave(turn: Turn, reason: string): void {
  update(turn, { leaving: reason });
  if (turn.state.connection === "known") send(turn, { kind: "leave", leave: { reason } });
  else if (turn.state.connection === "closed") end(turn, false, reason);
}

function shutDown(turn: Turn, { finished, reason }: { finished: boolean; reason: string }): void {
  const { running } = turn.state;
  if (finished && running?.assignment.worker === 0) turn.effects.push({ kind: "pictures" });
  end(turn, finished, reason);
}

function end(turn: Turn, finished: boolean, reason: string): void {
  update(turn, { ended: true });
  turn.effects.push({ kind: "end", finished, reason });
}
