/** The state of a worker's session, and one call of `decideWorker` while it is being worked out. Plain values. */
import type { Range } from "@paddock/contract";
import type { Assignment, Decision, Hello, Holding } from "@paddock/proto";
import type { WorkerEffect } from "./worker-event.js";

/** What Hello says of the process. */
export type WorkerFacts = Omit<Hello, "holdings">;

type Phase =
  | "loading"
  /** For a segment. */
  | "waiting"
  | "computing"
  | "prepared"
  | "applying"
  | "evaluating"
  | "stopped"
  /** What failed here has been reported: ABORT follows. */
  | "failed";

export interface RunningGeneration {
  readonly assignment: Assignment;
  readonly phase: Phase;
  /** Steps that the shards have; the next one is computed or has been. */
  readonly step: number;
  /** Loss scale of that step. */
  readonly scale: number;
  /** The decision that is being applied, or was applied last. */
  readonly decision: Decision | null;
  /** Decisions applied so far. */
  readonly decided: number;
  /** Steps that may be executed and are not all done. */
  readonly segments: readonly Range[];
  /** It has been interrupted, and `rested` is to come. */
  readonly ending: "no" | "to-answer" | "silently";
}

export interface WorkerState {
  readonly facts: WorkerFacts;
  /** `open`: a stream is there, Hello has to wait for what runs; `known`: Hello has been said. */
  readonly connection: "closed" | "open" | "known";
  /** Streams in a row on which nothing came. */
  readonly attempts: number;
  /** The run that is served; empty: none yet. */
  readonly runId: string;
  /** Its number of steps. */
  readonly steps: number;
  readonly running: RunningGeneration | null;
  /** The newest generation that was ever begun here: older assignments are void. */
  readonly newest: number;
  /** Shards at rest: at most two, of different generations. */
  readonly holdings: readonly Holding[];
  /** A decision about a held step, while it is applied. */
  readonly catchingUp: Decision | null;
  /** To begin when what runs has come to rest. */
  readonly next: Assignment | null;
  /** Why the worker wants to go; null: it does not. */
  readonly leaving: string | null;
  readonly ended: boolean;
}

/** The state so far and the effects so far, in the order in which they are to be carried out. */
export interface Turn {
  state: WorkerState;
  readonly effects: WorkerEffect[];
}

export function initialWorkerState(facts: WorkerFacts): Turn {
  const state: WorkerState = {
    facts,
    connection: "closed",
    attempts: 0,
    runId: "",
    steps: 0,
    running: null,
    newest: 0,
    holdings: [],
    catchingUp: null,
    next: null,
    leaving: null,
    ended: false,
  };
  return { state, effects: [{ kind: "connect", afterMs: 0 }] };
}

export function drop(turn: Turn, generation: number): void {
  update(turn, {
    holdings: turn.state.holdings.filter((held) => held.generation !== generation),
  });
  forget(turn, generation);
}

export function forget(turn: Turn, generation: number): void {
  turn.effects.push({ kind: "forget", generation });
}

export function update(turn: Turn, patch: Partial<WorkerState>): void {
  turn.state = { ...turn.state, ...patch };
}

export function updateRunning(turn: Turn, patch: Partial<RunningGeneration>): void {
  if (turn.state.running) update(turn, { running: { ...turn.state.running, ...patch } });
}

export function send(
  turn: Turn,
  message: Extract<WorkerEffect, { kind: "send" }>["message"],
): void {
  turn.effects.push({ kind: "send", message });
}
