/**
 * The coordinator's mind: `decide(state, event, now)` says what the state becomes and what is to be done. Pure: no I/O,
 * no clock, and the durable part of the state is the fold of the records that it asked to append.
 */
import type { Progress } from "@paddock/proto";
import {
  checkpointFailed,
  manifestFailed,
  manifestWritten,
  receiveCheckpoint,
  receiveEvaluation,
} from "./checkpoint.js";
import { decideIfPrepared, receivePrepared } from "./commit.js";
import { restartStep } from "./durable.js";
import { fail, interrupt } from "./ending.js";
import type { Effect, RunEvent } from "./event.js";
import { checkTime, join, leave, startIfPossible, workerFailed } from "./membership.js";
import { receiveHeld, receiveLeave } from "./rest.js";
import type { RunState, WorkerId } from "./state.js";
import { log, refuseStale, send, type Turn, update, updateWorker } from "./turn.js";

/**
 * The new state and the effects, in the order in which they are to be carried out. Throws only `internal`, when workers
 * contradict each other's layout.
 * @param now unix milliseconds, never less than in an earlier call
 */
export function decide(
  state: RunState,
  event: RunEvent,
  now: number,
): { readonly state: RunState; readonly effects: readonly Effect[] } {
  const turn: Turn = { state, effects: [], now };
  handle(turn, event);
  return { state: turn.state, effects: turn.effects };
}

function handle(turn: Turn, event: RunEvent): void {
  if (event.kind === "joined") join(turn, event.worker);
  else if (event.kind === "gone") leave(turn, event.id, event.reason);
  else if (turn.state.outcome === null) handleLive(turn, event);
}

function handleLive(turn: Turn, event: Exclude<RunEvent, { kind: "joined" | "gone" }>): void {
  switch (event.kind) {
    case "progress":
      receiveProgress(turn, event.id, event.progress);
      break;
    case "prepared":
      receivePrepared(turn, event.id, event.prepared);
      break;
    case "checkpoint-written":
      receiveCheckpoint(turn, event.id, event.written);
      break;
    case "checkpoint-failed":
      checkpointFailed(turn, event.id, event.failed);
      break;
    case "manifest-written":
      manifestWritten(turn, event);
      break;
    case "manifest-failed":
      manifestFailed(turn, event);
      break;
    case "evaluation-done":
      receiveEvaluation(turn, event.id, event.evaluation);
      break;
    case "failed":
      workerFailed(turn, event.id, event.failure);
      break;
    case "held":
      receiveHeld(turn, event.id, event.held);
      break;
    case "leaving":
      receiveLeave(turn, event.id, event.reason);
      break;
    case "tick":
      checkTime(turn);
      break;
    case "stood-still":
      forgive(turn, event.ms);
      break;
    case "drain":
      drain(turn, event.reason);
      break;
    case "pause":
      update(turn, { paused: turn.state.draining === null });
      break;
    case "resume":
      update(turn, { paused: false });
      decideIfPrepared(turn);
      break;
    case "scale":
      update(turn, { wanted: event.workers });
      startIfPossible(turn);
      break;
    case "checkpoint-now":
      update(turn, { checkpointRequested: true });
      break;
    case "broken":
      fail(turn, event.code, event.reason);
      break;
  }
}

function receiveProgress(turn: Turn, id: WorkerId, progress: Progress): void {
  const { active } = turn.state;
  if (active?.generation !== progress.generation || !active.members.includes(id)) {
    refuseStale(turn);
    return;
  }
  const { step, phase, waitingOn } = progress;
  updateWorker(turn, id, { step, phase, waitingOn, lastProgressMs: turn.now });
}

function forgive(turn: Turn, ms: number): void {
  log(turn, "warn", "the coordinator stood still: all leases are prolonged", { ms });
  const workers = turn.state.workers.map((worker) => ({
    ...worker,
    lastProgressMs: Math.min(turn.now, worker.lastProgressMs + ms),
  }));
  update(turn, { workers });
}

/** Ends after the step in progress and its checkpoint; at once when no step would be lost by that. */
function drain(turn: Turn, reason: string): void {
  const { active, draining, durable } = turn.state;
  if (draining !== null || active?.stopping) return;
  log(turn, "info", "draining", { reason });
  update(turn, { draining: reason, paused: false });
  if (!active) {
    // With the state still there, a generation saves it; else nothing more can be saved.
    startIfPossible(turn);
    return;
  }
  if (durable.next === restartStep(durable)) {
    interrupt(turn, reason);
    return;
  }
  for (const id of active.members) send(turn, id, { kind: "drain", drain: { reason } });
  decideIfPrepared(turn);
}
