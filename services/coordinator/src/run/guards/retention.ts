/** Which checkpoints stay on disk, with what guards may need of them. Pure. */
import { keptSteps, type Rollback, type RunSpec } from "@paddock/contract";
import { badRow, type GuardHistory } from "./history.js";

interface Retaining {
  readonly spec: RunSpec;
  readonly next: number;
  /** Steps of the checkpoints that are there, ascending. */
  readonly kept: readonly number[];
  readonly rollbacks: readonly Rollback[];
  readonly history: GuardHistory;
}

/**
 * Of the checkpoints that are there, those that stay: those of `spec.checkpoint`, and what a rollback may need. That is the one before the bad
 * steps that are perhaps the beginning of many, and before the data left out with them; as steps are repeated exactly up to there, the next rollback
 * begins at most that much earlier again, and so on.
 */
export function keptWithGuards(state: Retaining): number[] {
  const { kept, rollbacks, spec } = state;
  const { rollbackAfter, nonFinite, maxRollbacks } = spec.guards;
  const known = kept.map((step) => ({ step }));
  const stay = new Set(keptSteps(known, spec.checkpoint));
  const left = maxRollbacks - rollbacks.length;
  const firsts: number[] = [];
  if (rollbackAfter > 0 && nonFinite === "skip") {
    firsts.push(badRow(state.history, state.next)[0] ?? state.next);
  }
  const spike = spec.guards.spike;
  if (spike?.action === "rollback") {
    // With the next loss, a spike of so many: it began at the last loss but so many.
    const began = spike.steps > 1 ? state.history.losses.at(1 - spike.steps)?.step : undefined;
    firsts.push(began ?? state.next);
  }
  for (const first of left > 0 ? firsts : []) {
    const good = kept.findLast((step) => step <= first - left * stepsBefore(spec));
    if (good !== undefined) stay.add(good);
  }
  return kept.filter((step) => stay.has(step));
}

/** Good steps that are left out with the bad ones. */
export function stepsBefore({ guards }: RunSpec): number {
  const { skipWindow, skipBefore } = guards;
  return skipWindow ? skipBefore : 0;
}
