/** Between generations: how one ends and the next begins, what is held meanwhile, and who is told. */
import type { Assignment, Decision } from "@paddock/proto";
import {
  drop,
  forget,
  type RunningGeneration,
  send,
  type Turn,
  update,
  updateRunning,
} from "./worker-state.js";

/** Once nothing runs: what is held must not change any more. */
export function sayHello(turn: Turn): void {
  const { connection, running, catchingUp, facts, holdings, leaving } = turn.state;
  if (connection !== "open" || running || catchingUp) return;
  update(turn, { connection: "known" });
  send(turn, { kind: "hello", hello: { ...facts, holdings: [...holdings] } });
  if (leaving !== null) send(turn, { kind: "leave", leave: { reason: leaving } });
}

/** Of what is held only that stays from which the new generation is made. */
export function begin(turn: Turn, assignment: Assignment): void {
  const { generation, live, startStep, scale } = assignment;
  for (const held of turn.state.holdings) {
    const isSource = held.generation === live?.generation && held.step === startStep;
    if (!isSource) drop(turn, held.generation);
  }
  update(turn, {
    next: null,
    newest: generation,
    running: {
      assignment,
      phase: "loading",
      step: startStep,
      scale,
      decision: null,
      decided: 0,
      segments: [],
      ending: "no",
    },
  });
  turn.effects.push({ kind: "load", assignment });
}

/** A held step has been decided after all: its generation had committed, so what is older is void. */
export function caughtUp(turn: Turn, { generation, step }: Decision): void {
  for (const held of turn.state.holdings) {
    if (held.generation !== generation) drop(turn, held.generation);
  }
  update(turn, {
    catchingUp: null,
    holdings: turn.state.holdings.map((held) => ({ ...held, step: step + 1, prepared: false })),
  });
  atRest(turn, generation);
}

export function aborted(turn: Turn, generation: number): void {
  const { running } = turn.state;
  if (running?.assignment.generation === generation) interrupt(turn, running, "to-answer");
  else if (!running && generation === turn.state.newest) atRest(turn, generation);
}

export function interrupt(
  turn: Turn,
  { ending, assignment }: RunningGeneration,
  how: "to-answer" | "silently",
): void {
  updateRunning(turn, { ending: how });
  if (ending !== "no") return;
  turn.effects.push({ kind: "interrupt", generation: assignment.generation });
}

export function rested(turn: Turn, generation: number): void {
  const { running } = turn.state;
  if (running?.assignment.generation !== generation || running.ending === "no") return;
  const { assignment, step, decided: count, phase, ending } = running;
  const isPrepared = phase === "prepared";
  // An update that began and did not end leaves shards that nobody can vouch for.
  if (phase !== "applying" && (count > 0 || isPrepared)) {
    const { worker, workers, shadow } = assignment;
    const held = { generation, worker, workers, step, prepared: isPrepared, shadow };
    const holding = { ...held, runId: turn.state.runId };
    update(turn, { holdings: [...turn.state.holdings, holding] });
  } else forget(turn, generation);
  update(turn, { running: null });
  if (ending === "to-answer") atRest(turn, generation);
  else afterRest(turn);
}

/** Says what is held, to whoever asked. */
function atRest(turn: Turn, generation: number): void {
  const { connection, holdings } = turn.state;
  if (connection === "known") {
    send(turn, { kind: "held", held: { generation, holdings: [...holdings] } });
  }
  afterRest(turn);
}

function afterRest(turn: Turn): void {
  const { next } = turn.state;
  sayHello(turn);
  if (next) begin(turn, next);
}
