/** One call of `decide` while it is being worked out: the state so far and the effects so far. Never leaves this folder. */
import { type CoordinatorMessage, DecisionKind } from "@paddock/proto";
import { foldRecord, type RunRecord } from "./durable.js";
import type { Effect } from "./event.js";
import type { ActiveGeneration, Counters, RunState, WorkerId, WorkerState } from "./state.js";

export interface Turn {
  state: RunState;
  readonly effects: Effect[];
  /** Unix milliseconds. */
  readonly now: number;
}

export function update(turn: Turn, patch: Partial<RunState>): void {
  turn.state = { ...turn.state, ...patch };
}

export function updateActive(turn: Turn, patch: Partial<ActiveGeneration>): void {
  if (turn.state.active) update(turn, { active: { ...turn.state.active, ...patch } });
}

export function updateWorker(turn: Turn, id: WorkerId, patch: Partial<WorkerState>): void {
  const workers = turn.state.workers.map((w) => (w.id === id ? { ...w, ...patch } : w));
  update(turn, { workers });
}

export function count(turn: Turn, patch: Partial<Counters>): void {
  const counters = { ...turn.state.counters };
  for (const [name, by] of Object.entries(patch)) counters[name as keyof Counters] += by;
  update(turn, { counters });
}

/** The only way to change durable state: what is in memory is by construction the fold of what is on disk. */
export function append(turn: Turn, record: RunRecord): void {
  update(turn, { durable: foldRecord(turn.state.durable, record) });
  turn.effects.push({ kind: "append", record });
}

export function send(turn: Turn, id: WorkerId, message: CoordinatorMessage): void {
  turn.effects.push({ kind: "send", id, message });
}

export function log(
  turn: Turn,
  level: "info" | "warn" | "error",
  event: string,
  fields: Readonly<Record<string, unknown>> = {},
): void {
  turn.effects.push({ kind: "log", level, event, fields });
}

/** A message of another generation or step, or of somebody who is no member: void. */
export function refuseStale(turn: Turn): void {
  count(turn, { staleMessages: 1 });
}

/** Ends the generation in force, if there is one, for all who are still there: they will say what they hold. */
export function abortGeneration(turn: Turn): void {
  const { active, durable } = turn.state;
  if (!active) return;
  for (const id of active.members) {
    if (!turn.state.workers.some((worker) => worker.id === id)) continue;
    const decision = {
      generation: active.generation,
      step: durable.next,
      kind: DecisionKind.DECISION_KIND_ABORT,
      gradNorm: {},
      scale: durable.scaler.scale,
      goodSteps: durable.scaler.goodSteps,
      checkpoint: false,
      evaluate: false,
      stop: false,
    };
    send(turn, id, { kind: "decision", decision });
  }
  update(turn, {
    active: null,
    workers: turn.state.workers.map((worker) =>
      active.members.includes(worker.id)
        ? { ...worker, owesHeld: active.generation, holdings: [], lastProgressMs: turn.now }
        : worker,
    ),
  });
}
