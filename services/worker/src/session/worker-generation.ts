/** One generation in the worker's mind: its beginning, its steps, its end, and what is held at rest. Part of `decideWorker`. */
import type { Assignment, Holding } from "@paddock/proto";
import type { Current, WorkerState, WorkerTurn } from "./worker-event.js";

export function patchCurrent(turn: WorkerTurn, patch: Partial<Current>): void {
  const { current } = turn.state;
  if (current) turn.state = { ...turn.state, current: { ...current, ...patch } };
}

/** Nothing runs, and no decision waits to be applied. */
export function isQuiet({ current }: WorkerState): boolean {
  return current === null || (current.mode === "over" && current.activity === null);
}

/** What Hello and Held tell: the newest shards at rest. */
export function holdingOf(state: WorkerState): Holding | null {
  return readableHoldings(state)[0] ?? null;
}

/** Shards that peers may read: at rest between two steps. Newest first. */
export function readableHoldings({ current, older }: WorkerState): readonly Holding[] {
  const isAtRest = current?.mode === "over" && current.activity === null;
  return [...(isAtRest ? [holding(current)] : []), ...(older ? [older] : [])];
}

function holding({ assignment, step, prepared }: Current): Holding {
  const { generation, worker, workers, shadow } = assignment;
  return { generation, worker, workers, step, prepared, shadow };
}

/** The generation is over: what runs of it is interrupted. */
export function endGeneration(turn: WorkerTurn): void {
  const { current } = turn.state;
  if (current?.mode !== "running") return;
  // An update that has begun is finished, and reported before `rested`; all else is void.
  const activity = current.activity === "apply" ? "apply" : null;
  patchCurrent(turn, { mode: "ending", activity });
  turn.effects.push({ kind: "interrupt", generation: current.assignment.generation });
}

/** Nothing of the generation runs any more. */
export function toRest(turn: WorkerTurn): void {
  const { current } = turn.state;
  if (!current) return;
  const broken = current.broken || current.activity === "apply";
  patchCurrent(turn, { mode: "over", activity: null, broken });
}

/** What has waited until nothing runs: a late decision, the choice of what to keep, Held, the next generation. */
export function settle(turn: WorkerTurn): void {
  if (turn.state.ended || !isQuiet(turn.state)) return;
  const { current } = turn.state;
  if (current?.decision && !current.broken) {
    patchCurrent(turn, { activity: "apply" });
    turn.effects.push({ kind: "apply", decision: current.decision, publish: false });
    return;
  }
  if (current && !isWorthKeeping(current)) {
    turn.effects.push({ kind: "forget", generation: current.assignment.generation });
    turn.state = { ...turn.state, current: null };
  } else if (current?.aborted) patchCurrent(turn, { prepared: false });
  const { state } = turn;
  if (state.link !== "up") return;
  if (state.owesHeld) {
    const held = { generation: state.generation, holding: holdingOf(state) };
    turn.effects.push({ kind: "send", message: { kind: "held", held } });
    turn.state = { ...state, owesHeld: false };
  }
  if (state.next) beginGeneration(turn, state.next);
}

/**
 * Before the first decision of a generation its members may not all have loaded: the older holdings are what counts.
 * Unless this worker prepared the first step: then the decision may have been made and not have reached it.
 */
function isWorthKeeping({ broken, decided, prepared, aborted }: Current): boolean {
  return !broken && (decided || (prepared && !aborted));
}

/** Keeps what the new generation is loaded from, and nothing else. */
function beginGeneration(turn: WorkerTurn, assignment: Assignment): void {
  const { state } = turn;
  const { live, startStep } = assignment;
  const isSource = (known: Holding): boolean =>
    known.generation === live?.generation && known.step === startStep;
  const known = readableHoldings(state);
  for (const { generation } of known.filter((one) => !isSource(one))) {
    turn.effects.push({ kind: "forget", generation });
  }
  const source = known.find(isSource);
  turn.state = {
    ...state,
    generation: assignment.generation,
    next: null,
    older: source ? { ...source, prepared: false } : null,
    current: {
      assignment,
      mode: "running",
      activity: "load",
      step: startStep,
      prepared: false,
      decision: null,
      decided: false,
      broken: false,
      aborted: false,
      scale: assignment.scale,
      evaluation: assignment.evaluateFirst ? { full: true } : null,
      stopped: false,
      until: startStep,
      jobs: [],
    },
  };
  turn.effects.push({ kind: "load", assignment });
}

/** The next thing to do of a generation that runs: an evaluation that is due, then the next step that may be executed. */
export function proceed(turn: WorkerTurn): void {
  const { current } = turn.state;
  if (current?.mode !== "running" || current.activity !== null) return;
  const { step, evaluation, stopped, prepared, until, scale } = current;
  const { generation } = current.assignment;
  if (evaluation) {
    patchCurrent(turn, { activity: "evaluate", evaluation: null });
    turn.effects.push({ kind: "evaluate", generation, step, full: evaluation.full });
    return;
  }
  finishJobs(turn, current);
  if (stopped || prepared || step >= until) return;
  patchCurrent(turn, { activity: "compute" });
  turn.effects.push({ kind: "compute", generation, step, scale });
}

function finishJobs(turn: WorkerTurn, { jobs, step, stopped, assignment }: Current): void {
  const done = jobs.filter(({ end }) => stopped || end <= step);
  if (done.length === 0) return;
  patchCurrent(turn, { jobs: jobs.filter((job) => !done.includes(job)) });
  const { generation } = assignment;
  for (const { start, end } of done) {
    turn.effects.push({ kind: "segment-done", generation, start, end, stop: stopped });
  }
}
