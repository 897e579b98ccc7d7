/** The steps of a generation that runs in a worker: one after the other, each when a segment allows it. */
import type { Range } from "@paddock/contract";
import type { Decision } from "@paddock/proto";
import type { WorkerEvent } from "./worker-event.js";
import {
  drop,
  type RunningGeneration,
  send,
  type Turn,
  update,
  updateRunning,
} from "./worker-state.js";

export function loaded(turn: Turn, { assignment, step }: RunningGeneration): void {
  const { generation, checkpointFirst, evaluateFirst } = assignment;
  if (checkpointFirst) turn.effects.push({ kind: "checkpoint", generation, step });
  if (!evaluateFirst) {
    goOn(turn);
    return;
  }
  updateRunning(turn, { phase: "evaluating" });
  turn.effects.push({ kind: "evaluate", generation, step, full: true });
}

export function granted(turn: Turn, running: RunningGeneration, { start, end }: Range): void {
  const { generation } = running.assignment;
  if (end <= running.step) {
    turn.effects.push({ kind: "segment-done", generation, start, end });
    return;
  }
  const others = running.segments.filter((known) => known.start !== start || known.end !== end);
  updateRunning(turn, { segments: [...others, { start, end }] });
  if (running.phase === "waiting") goOn(turn);
}

/** To the next step, if it may be executed. */
export function goOn(turn: Turn): void {
  const { running } = turn.state;
  if (!running) return;
  const { segments, step, scale, assignment, decision } = running;
  if (decision?.stop) {
    updateRunning(turn, { phase: "stopped" });
    return;
  }
  const mayCompute = segments.some(({ start, end }) => start <= step && step < end);
  updateRunning(turn, { phase: mayCompute ? "computing" : "waiting" });
  if (!mayCompute) return;
  turn.effects.push({ kind: "compute", generation: assignment.generation, step, scale });
}

export function prepared(
  turn: Turn,
  { generation, step, report }: Extract<WorkerEvent, { kind: "prepared" }>,
): void {
  updateRunning(turn, { phase: "prepared" });
  send(turn, { kind: "prepared", prepared: { generation, step, ...report } });
}

/** COMMIT or SKIP, of the step that is prepared here and of no other. */
export function decided(turn: Turn, decision: Decision): void {
  const { running, holdings, catchingUp } = turn.state;
  if (running) {
    const isDue =
      running.ending === "no" &&
      running.phase === "prepared" &&
      running.assignment.generation === decision.generation &&
      running.step === decision.step;
    if (!isDue) return;
    // Everybody has prepared a step of this generation, hence has loaded: older shards have done their service.
    for (const held of holdings) drop(turn, held.generation);
    updateRunning(turn, { phase: "applying", decision });
    turn.effects.push({ kind: "apply", decision });
    return;
  }
  const isHeld = holdings.some(
    (held) =>
      held.prepared && held.generation === decision.generation && held.step === decision.step,
  );
  if (!isHeld || catchingUp) return;
  update(turn, { catchingUp: decision });
  turn.effects.push({ kind: "apply", decision });
}

/** What the decision asks for beside the update. */
export function afterStep(turn: Turn, { generation, step, checkpoint, evaluate }: Decision): void {
  const done = step + 1;
  const { running, steps } = turn.state;
  for (const { start, end } of running?.segments ?? []) {
    if (end > done && !running?.decision?.stop) continue;
    turn.effects.push({ kind: "segment-done", generation, start, end });
  }
  updateRunning(turn, { segments: running?.segments.filter(({ end }) => end > done) ?? [] });
  if (checkpoint) turn.effects.push({ kind: "checkpoint", generation, step: done });
  if (!evaluate) {
    goOn(turn);
    return;
  }
  updateRunning(turn, { phase: "evaluating" });
  turn.effects.push({ kind: "evaluate", generation, step: done, full: done === steps });
}
