/** What changed between two looks at a run: steps, evaluations, checkpoints, warnings and what guards did, as events. */
import type { StepRecord } from "@paddock/contract";
import { type Run, RunPhase } from "@paddock/proto";
import type { RunEvent } from "./display.js";
import { percent } from "./format.js";

export interface Milestones {
  /** The last committed step if it is new since the last look. */
  readonly step: StepRecord | undefined;
  readonly events: readonly RunEvent[];
}

/** Looks at a run; remembers the last look. */
export type Look = (run: Run) => Milestones;

/** @param evaluateEvery steps between evaluations: by the time of a look, later steps may have been committed */
export function milestoneWatcher(evaluateEvery: number): Look {
  let step = -1;
  let knn = -1;
  let evaluated = -1;
  let checkpoint = -1;
  let alert = "";
  let incidents: readonly string[] = [];
  return (run) => {
    const events: RunEvent[] = [];
    const record = lastStepOf(run);
    const isNew = record !== undefined && record.step !== step;
    if (isNew) step = record.step;
    const after = evaluatedStep(run, run.knnAccuracy !== knn, evaluateEvery);
    if (run.knnAccuracy >= 0 && after > evaluated) {
      knn = run.knnAccuracy;
      evaluated = after;
      events.push({
        kind: "evaluation",
        message: `k-NN ${percent(knn)} after ${after} steps`,
        fields: { step: after, knn },
      });
    }
    if (run.checkpointStep >= 0 && run.checkpointStep !== checkpoint) {
      checkpoint = run.checkpointStep;
      events.push({
        kind: "checkpoint",
        message: `checkpoint of step ${checkpoint} is durable`,
        fields: { step: checkpoint },
      });
    }
    events.push(...alertEvents(alert, run));
    alert = run.alert;
    events.push(...guardEvents(incidents, run));
    incidents = run.incidents;
    return { step: isNew ? record : undefined, events };
  };
}

function alertEvents(before: string, { alert, step }: Run): RunEvent[] {
  if (alert === before) return [];
  const message = alert === "" ? "what was warned of is over" : `warning: ${alert}`;
  return [{ kind: "alert", message, fields: { step, alert } }];
}

/** The run shows its last incidents only: those after the last one that was known. */
function guardEvents(known: readonly string[], { incidents, step }: Run): RunEvent[] {
  const last = known.at(-1);
  const first = last === undefined ? 0 : incidents.lastIndexOf(last) + 1;
  return incidents.slice(first).map((incident) => ({
    kind: "guard",
    message: `guard: ${incident}`,
    fields: { step, incident },
  }));
}

/**
 * The step of the run's last evaluation. When the accuracy has changed, it is the last step at which one is due; when it
 * has not, that one may still be running, unless a later step or the run's end shows that it is over.
 */
function evaluatedStep(run: Run, changed: boolean, every: number): number {
  if (run.step === run.steps && (changed || run.phase === RunPhase.RUN_PHASE_FINISHED)) {
    return run.steps;
  }
  return Math.floor((changed ? run.step : run.step - 1) / every) * every;
}

/** The last committed step of a run, or undefined before the first. */
export function lastStepOf(run: Run): StepRecord | undefined {
  return run.lastStepJson === "" ? undefined : (JSON.parse(run.lastStepJson) as StepRecord);
}
