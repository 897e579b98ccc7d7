/** What changed between two looks at a run: steps, evaluations and checkpoints, as events. */
import type { StepRecord } from "@paddock/contract";
import type { Run } from "@paddock/proto";
import type { RunEvent } from "./display.js";
import { percent } from "./format.js";

export interface Milestones {
  /** The last committed step if it is new since the last look. */
  readonly step: StepRecord | undefined;
  readonly events: readonly RunEvent[];
}

/** A look at a run that remembers the last one. */
export function milestoneWatcher(): (run: Run) => Milestones {
  let step = -1;
  let knn = -1;
  let checkpoint = -1;
  return (run) => {
    const events: RunEvent[] = [];
    const record = lastStepOf(run);
    const isNew = record !== undefined && record.step !== step;
    if (isNew) step = record.step;
    if (run.knnAccuracy >= 0 && run.knnAccuracy !== knn) {
      knn = run.knnAccuracy;
      events.push({
        kind: "evaluation",
        message: `k-NN ${percent(knn)} after ${run.step} steps`,
        fields: { step: run.step, knn },
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
    return { step: isNew ? record : undefined, events };
  };
}

/** The last committed step of a run, or undefined before the first. */
export function lastStepOf(run: Run): StepRecord | undefined {
  return run.lastStepJson === "" ? undefined : (JSON.parse(run.lastStepJson) as StepRecord);
}
