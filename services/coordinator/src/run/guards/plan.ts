/** What guards make of a committed step: nothing, a word, a step back, or the end. Pure. */
import { type DataWindow, type GuardCause, type Offender, offenderText } from "@paddock/contract";
import type { DurableState } from "../durable.js";
import { badRow } from "./history.js";
import { stepsBefore } from "./retention.js";
import { type Spike, spikeAt } from "./spike.js";

export type GuardAction =
  | { readonly kind: "none" }
  | { readonly kind: "stop" | "warn"; readonly cause: GuardCause; readonly message: string }
  | {
      readonly kind: "rollback";
      readonly cause: GuardCause;
      readonly message: string;
      readonly toStep: number;
      /** Steps whose data is left out. */
      readonly skip: DataWindow | null;
    };

/** After the commit of step `state.next - 1`. @param offender of that step, if it was skipped */
export function guardAction(state: DurableState, offender: Offender | undefined): GuardAction {
  return offender ? afterSkip(state, offender) : afterLoss(state);
}

function afterSkip(state: DurableState, offender: Offender): GuardAction {
  const { guards } = state.spec;
  const step = state.next - 1;
  const cause = "non-finite";
  const what = offenderText(offender);
  if (offender.reason !== "overflow") {
    if (guards.nonFinite === "stop") {
      const message = `step ${step} is not finite: ${what}; guards.nonFinite is stop`;
      return { kind: "stop", cause, message };
    }
    const row = badRow(state.history, state.next);
    if (guards.rollbackAfter > 0 && row.length >= guards.rollbackAfter) {
      const message = `${row.length} steps in a row were not finite, the last one step ${step}: ${what}`;
      return backOrStop(state, cause, message, row[0] as number);
    }
  }
  if (state.skipsInRow < guards.maxSkipsInRow) return { kind: "none" };
  const message = `${state.skipsInRow} steps in a row had a gradient or a loss that is not finite, the last one step ${step}; first seen in ${what}; lower the learning rate, look at the data, or let the run go back by itself (guards.rollbackAfter)`;
  return { kind: "stop", cause, message };
}

function afterLoss(state: DurableState): GuardAction {
  const settings = state.spec.guards.spike;
  const spike = settings && spikeAt(settings, state.history.losses);
  if (!settings || !spike) return { kind: "none" };
  const message = spikeText(spike, settings.factor);
  if (settings.action !== "rollback") return { kind: settings.action, cause: "spike", message };
  return backOrStop(state, "spike", message, spike.from);
}

/** A run that cannot go back ends, if its steps are not finite; a spike is then only reported. @param firstBad step */
function backOrStop(
  state: DurableState,
  cause: GuardCause,
  message: string,
  firstBad: number,
): GuardAction {
  const { maxRollbacks, skipWindow } = state.spec.guards;
  const kind = cause === "spike" ? "warn" : "stop";
  const remedy = kind === "stop" ? "; lower the learning rate, or look at the data" : "";
  if (state.rollbacks.length >= maxRollbacks) {
    const spent = `${message}; it has gone back ${state.rollbacks.length} times already (guards.maxRollbacks)${remedy}`;
    return { kind, cause, message: spent };
  }
  const from = Math.max(state.start.step, firstBad - stepsBefore(state.spec));
  const toStep = goodStep(state, from);
  if (toStep === null) {
    return {
      kind,
      cause,
      message: `${message}; the checkpoints before step ${from} are gone${remedy}`,
    };
  }
  return {
    kind: "rollback",
    cause,
    message,
    toStep,
    skip: skipWindow ? { from, to: state.next } : null,
  };
}

/** The newest place to restart from that knows nothing of step `from`; null: it has been deleted. */
function goodStep({ checkpoints, kept, start }: DurableState, from: number): number | null {
  const good = kept.findLast((step) => step <= from);
  if (good !== undefined) return good;
  return checkpoints.some(({ step }) => step <= from) ? null : start.step;
}

function spikeText({ from, step, loss, median, limit }: Spike, factor: number): string {
  return `the loss spiked: ${loss.toPrecision(5)} in step ${step}, above ${limit.toPrecision(5)} since step ${from} (median before: ${median.toPrecision(5)}, guards.spike.factor ${factor})`;
}
