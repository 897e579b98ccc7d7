/** The three ways in which a run ends. */
import type { ErrorCode } from "@paddock/contract";
import { evaluationDue, type Outcome } from "./state.js";
import { abortGeneration, append, log, send, type Turn, update } from "./turn.js";

/** The last step's checkpoint is durable. */
export function finish(turn: Turn): void {
  const { durable } = turn.state;
  const { steps } = durable.spec;
  if (evaluationDue(durable.spec, steps) && durable.evaluations.at(-1)?.step !== steps) {
    log(turn, "warn", "finished without the last evaluation: its worker left", { step: steps });
  }
  append(turn, { kind: "finished", step: durable.next, unixMs: turn.now });
  end(turn, { kind: "finished" }, "finished");
}

/** Drained before the last step; resumable. */
export function interrupt(turn: Turn, reason: string): void {
  end(turn, { kind: "interrupted", reason }, reason);
}

/** Nothing is recorded: whoever removes the cause can resume. */
export function fail(turn: Turn, code: ErrorCode, reason: string): void {
  end(turn, { kind: "failed", code, reason }, reason);
}

/** After the stop decision: ends the run once its checkpoint is durable and its evaluation is there. */
export function endIfDone(turn: Turn): void {
  const { active, durable, draining } = turn.state;
  if (!active?.stopping) return;
  if (active.pendingCheckpoints.length > 0 || active.pendingEvaluations.length > 0) return;
  if (durable.next >= durable.spec.steps) finish(turn);
  else interrupt(turn, draining ?? "stopped");
}

function end(turn: Turn, outcome: Outcome, reason: string): void {
  const finished = outcome.kind === "finished";
  if (turn.state.active?.stopping) update(turn, { active: null });
  else abortGeneration(turn);
  for (const { id } of turn.state.workers) {
    send(turn, id, { kind: "shutdown", shutdown: { finished, reason } });
    turn.effects.push({ kind: "dismiss", id, reason });
  }
  update(turn, { outcome });
  const { generation, workers, next } = turn.state.durable;
  turn.effects.push({ kind: "segments", generation, workers, segments: [] });
  log(turn, outcome.kind === "failed" ? "error" : "info", `run ${outcome.kind}`, {
    step: next,
    ...(finished ? {} : { reason }),
  });
  turn.effects.push({ kind: "end", outcome });
}
