/** Carries out what guards decide about a step: in the ledger first, then to everyone. */
import { type Offender, offenderText } from "@paddock/contract";
import { fail } from "../ending.js";
import { startIfPossible } from "../membership.js";
import type { ActiveGeneration, Counters } from "../state.js";
import { append, count, log, type Turn, update } from "../turn.js";
import { type GuardAction, guardAction } from "./plan.js";
import { rollBack } from "./roll-back.js";
import { isCalm } from "./spike.js";

/**
 * After the commit of a step, before anybody is told. True: the generation goes on; false: it is over, with the run or by a rollback.
 * @param offender of the step, if it was skipped
 */
export function guardStep(turn: Turn, active: ActiveGeneration, offender?: Offender): boolean {
  if (offender) logSkip(turn, active, offender);
  const action = guardAction(turn.state.durable, offender);
  if (!offender) watchSpike(turn, action);
  switch (action.kind) {
    case "none":
      return true;
    case "warn":
      // Said once; the next time when the loss has come down in between.
      if (turn.state.spike === "") say(turn, active, action);
      return true;
    case "stop":
      say(turn, active, action);
      fail(turn, action.cause === "spike" ? "loss-spike" : "non-finite", action.message);
      return false;
    case "rollback":
      rollBack(turn, action, offender ?? null);
      startIfPossible(turn);
      return false;
  }
}

/** An overflow is normal with a loss scale that grows; anything else is worth a look. */
function logSkip(turn: Turn, { generation }: ActiveGeneration, offender: Offender): void {
  const fields = { step: turn.state.durable.next - 1, generation, ...offender };
  if (offender.reason === "overflow") log(turn, "info", "step skipped: fp16 overflow", fields);
  else {
    log(turn, "warn", "step skipped: not finite", { ...fields, first: offenderText(offender) });
  }
}

/** What a skipped step adds to the counters. */
export function skipCount(offender: Offender | undefined): Partial<Counters> {
  if (!offender) return {};
  const { reason } = offender;
  return {
    skippedOverflow: reason === "overflow" ? 1 : 0,
    skippedLoss: reason === "loss" ? 1 : 0,
    skippedGradient: reason === "gradient" ? 1 : 0,
  };
}

/** The spike that is shown is over once the loss is well below it. */
function watchSpike(turn: Turn, action: GuardAction): void {
  const { durable, spike } = turn.state;
  const settings = durable.spec.guards.spike;
  if (!settings || spike === "" || action.kind !== "none") return;
  if (!isCalm(settings, durable.history.losses)) return;
  update(turn, { spike: "" });
  log(turn, "info", "loss spike over", { step: durable.next - 1 });
}

function say(
  turn: Turn,
  { generation }: ActiveGeneration,
  { kind: action, cause, message }: GuardAction & { readonly kind: "warn" | "stop" },
): void {
  const step = turn.state.durable.next - 1;
  append(turn, { kind: "guard", step, generation, cause, action, message, unixMs: turn.now });
  log(turn, "warn", cause === "spike" ? "loss spike" : "not finite", { step, action, message });
  if (cause !== "spike") return;
  count(turn, { spikes: 1 });
  update(turn, { spike: message });
}
