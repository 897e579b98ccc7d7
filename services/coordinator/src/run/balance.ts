/**
 * How many logical ranks each worker executes: as many as its measured speed is worth (`fleet.balance: measured`). What a run computes does
 * not depend on it, only when it is done. Pure looks at the state, and what they are made from.
 */
import {
  cutsBySpeed,
  evenCuts,
  type RankCuts,
  ranksOfCut,
  type StepPart,
  sizeOf,
} from "@paddock/contract";
import type { Prepared } from "@paddock/proto";
import type { ActiveGeneration, RunState, WorkerState } from "./state.js";
import { type Turn, update, updateActive } from "./turn.js";

/** Steps whose median is a worker's pace: nearly half of them may have been disturbed. */
const paceSteps = 15;
/** With fewer steps than that a worker has not been measured. */
const minPaceSteps = 5;
/** A generation keeps its cuts for so many steps at least, and none is begun for the sake of fewer than that. */
const minSteps = 20;
/** So many steps in a row must have shown that other cuts would be clearly better. */
const patienceSteps = 5;
/** What is clearly better: a step that is shorter by that ratio, and by so many seconds. */
const minRatio = 1.15;
const minGainSeconds = 0.05;

/** The parts of a step that take longer with more ranks. Not gather and wait, in which a worker waits for others, nor what is done once per shard. */
const rankParts: readonly StepPart[] = ["data", "teacher", "student", "loss", "backward", "reduce"];

/** Notes what a committed step says about the members' speed. The first step of a generation says nothing: it begins with a load. */
export function measurePaces(turn: Turn, prepared: readonly Prepared[]): void {
  const { active, workers } = turn.state;
  if (!active || active.commits === 0) return;
  const measured = workers.map((worker) => {
    const said = prepared[active.members.indexOf(worker.id)];
    const pace = said ? paceOf(said) : undefined;
    return pace ? { ...worker, paces: [...worker.paces, pace].slice(-paceSteps) } : worker;
  });
  update(turn, { workers: measured });
  updateActive(turn, { unevenSteps: isUneven(turn.state, active) ? active.unevenSteps + 1 : 0 });
}

/** Seconds of computing per logical rank in one step; undefined if the worker has not said. */
function paceOf({ seconds, losses }: Prepared): number | undefined {
  const sum = rankParts.reduce((total, part) => total + (seconds[part] ?? 0), 0);
  return Number.isFinite(sum) && sum > 0 && losses.length > 0 ? sum / losses.length : undefined;
}

/** Seconds of computing per logical rank, the median of a worker's last steps; undefined: not measured. */
export function paceOfWorker({ paces }: Pick<WorkerState, "paces">): number | undefined {
  return paces.length < minPaceSteps ? undefined : median(paces);
}

/**
 * The cuts of a generation of these workers: even ones, unless others are clearly better. A worker that has not been measured is taken for
 * one like the others.
 */
export function cutsFor(
  { durable: { spec } }: Pick<RunState, "durable">,
  workers: readonly Pick<WorkerState, "paces">[],
): RankCuts {
  const even = evenCuts(spec.logicalRanks, workers.length);
  const known = workers.flatMap((worker) => paceOfWorker(worker) ?? []);
  if (spec.fleet.balance === "even" || known.length === 0) return even;
  const paces = workers.map((worker) => paceOfWorker(worker) ?? median(known));
  const best = cutsBySpeed(
    spec.logicalRanks,
    paces.map((pace) => 1 / pace),
  );
  return isClearlyBetter(best, even, paces) ? best : even;
}

/** Whether the generation shall be replaced by one with other cuts, now that a step has been committed. */
export function rebalanceDue({ active, durable }: RunState): boolean {
  if (!active) return false;
  const { unevenSteps, commits, pendingCheckpoints, pendingEvaluations } = active;
  const hasProof = unevenSteps >= patienceSteps && commits >= minSteps;
  const isWorthIt = durable.spec.steps - durable.next >= minSteps;
  // What the generation still owes would have to be waited for.
  const owesNothing = pendingCheckpoints.length === 0 && pendingEvaluations.length === 0;
  return hasProof && isWorthIt && owesNothing;
}

/** How many ranks each worker has: "6, 2". */
export function countsOf(cuts: RankCuts): string {
  return cuts
    .slice(1)
    .map((_, worker) => sizeOf(ranksOfCut(cuts, worker)))
    .join(", ");
}

/** Whether other cuts would be clearly better, as far as all members have been measured. */
function isUneven(state: RunState, { members, cuts }: ActiveGeneration): boolean {
  const workers = members.flatMap((id) => state.workers.find((known) => known.id === id) ?? []);
  const paces = workers.flatMap((worker) => paceOfWorker(worker) ?? []);
  if (paces.length < members.length) return false;
  return isClearlyBetter(cutsFor(state, workers), cuts, paces);
}

function isClearlyBetter(better: RankCuts, than: RankCuts, paces: readonly number[]): boolean {
  const [shorter, longer] = [slowestSeconds(better, paces), slowestSeconds(than, paces)];
  return longer > shorter * minRatio && longer - shorter > minGainSeconds;
}

/** Seconds that the slowest worker computes. */
function slowestSeconds(cuts: RankCuts, paces: readonly number[]): number {
  return Math.max(...paces.map((pace, worker) => sizeOf(ranksOfCut(cuts, worker)) * pace));
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [(sorted.length - 1) >> 1, sorted.length >> 1];
  return ((sorted[low] as number) + (sorted[high] as number)) / 2;
}
