/** What guards make of a committed step: nothing, a word, a step back, or the end. Pure. */
import type { DataWindow, GuardCause, Offender } from "@paddock/contract";
import type { DurableState } from "../durable.js";
import { badRow } from "./history.js";
import { offenderText } from "./offender.js";
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
      return backOrStop(state, cause, message, { from: row[0] as number, to: state.next });
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
  const from = Math.max(state.start.step, spike.from - settings.skipBefore);
  return backOrStop(state, "spike", message, { from, to: state.next });
}

/** A run that has gone back often enough ends, if its steps are not finite; a spike is then only reported. */
function backOrStop(
  state: DurableState,
  cause: GuardCause,
  message: string,
  bad: DataWindow,
): GuardAction {
  const { maxRollbacks, skipWindow } = state.spec.guards;
  if (state.rollbacks.length < maxRollbacks) {
    return {
      kind: "rollback",
      cause,
      message,
      toStep: goodStep(state, bad.from),
      skip: skipWindow ? bad : null,
    };
  }
  const spent = `${message}; it has gone back ${maxRollbacks} times already (guards.maxRollbacks)`;
  return { kind: cause === "spike" ? "warn" : "stop", cause, message: spent };
}

/** The newest place to restart from that knows nothing of step `from`. */
export function goodStep(state: DurableState, from: number): number {
  return state.checkpoints.findLast(({ step }) => step <= from)?.step ?? state.start.step;
}

/**
 * Steps of the durable checkpoints that stay: the newest ones, and what a step back may need: the one before the skipped steps that are
 * perhaps the beginning of many, and the one before what a spike that ends now would leave out.
 */
export function keptSteps(state: DurableState): number[] {
  const { checkpoint, guards } = state.spec;
  const kept = state.checkpoints.slice(-checkpoint.keep).map(({ step }) => step);
  const needed: number[] = [];
  const [firstBad] = badRow(state.history, state.next);
  if (guards.rollbackAfter > 0 && firstBad !== undefined) needed.push(firstBad);
  const { spike } = guards;
  if (spike?.action === "rollback") needed.push(state.next - spike.steps + 1 - spike.skipBefore);
  for (const from of needed) {
    const good = state.checkpoints.findLast(({ step }) => step <= from);
    if (good && !kept.includes(good.step)) kept.push(good.step);
  }
  return kept.sort((a, b) => a - b);
}

function spikeText({ from, step, loss, median, limit }: Spike, factor: number): string {
  return `the loss spiked: ${loss.toPrecision(5)} in step ${step}, above ${limit.toPrecision(5)} since step ${from} (median before: ${median.toPrecision(5)}, guards.spike.factor ${factor})`;
}
