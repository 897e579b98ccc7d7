/** Carries out what guards decide about a step: in the ledger first, then to everyone. */
import type { Offender } from "@paddock/contract";
import { fail } from "../ending.js";
import { startIfPossible } from "../membership.js";
import type { ActiveGeneration, Counters } from "../state.js";
import { abortGeneration, append, count, log, type Turn, update } from "../turn.js";
import { offenderText } from "./offender.js";
import { type GuardAction, guardAction } from "./plan.js";
import { isCalm } from "./spike.js";
import { rollbackText } from "./text.js";

/** Incidents that are shown. */
const shownIncidents = 5;

/**
 * After the commit of a step, before anybody is told. True: the generation goes on; false: it is over, with the run or by a step back.
 * @param offender of the step, if it was skipped
 */
export function guardStep(turn: Turn, active: ActiveGeneration, offender?: Offender): boolean {
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
      rollBack(turn, active, action, offender ?? null);
      return false;
  }
}

/** An overflow is normal with a loss scale that grows; anything else is worth a look. */
export function logSkip(
  turn: Turn,
  active: ActiveGeneration,
  offender: Offender,
  fields: { readonly step: number; readonly lossScale: number },
): void {
  const { generation } = active;
  if (offender.reason === "overflow") {
    log(turn, "info", "step skipped: fp16 overflow", { ...fields, generation, ...offender });
    return;
  }
  log(turn, "warn", "step skipped: not finite", { ...fields, generation, ...offender });
  incident(turn, `step ${fields.step} skipped, not finite: ${offenderText(offender)}`);
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
  active: ActiveGeneration,
  { kind, cause, message }: GuardAction & { readonly kind: "warn" | "stop" },
): void {
  const step = turn.state.durable.next - 1;
  append(turn, {
    kind: "guard",
    step,
    generation: active.generation,
    cause,
    action: kind,
    message,
    unixMs: turn.now,
  });
  log(turn, "warn", cause === "spike" ? "loss spike" : "not finite", { step, message });
  if (cause === "spike") {
    count(turn, { spikes: 1 });
    update(turn, { spike: message });
  }
  incident(turn, message);
}

/** Back to the last good checkpoint. What the generation still wrote of later steps is void. */
function rollBack(
  turn: Turn,
  active: ActiveGeneration,
  action: GuardAction & { readonly kind: "rollback" },
  offender: Offender | null,
): void {
  const { cause, message, toStep, skip } = action;
  const { now } = turn;
  const step = turn.state.durable.next - 1;
  append(turn, {
    kind: "rollback",
    step,
    toStep,
    skip,
    cause,
    reason: message,
    offender,
    unixMs: now,
  });
  const text = rollbackText(action);
  log(turn, "warn", "rollback", { step, toStep, skip, reason: message });
  incident(turn, text);
  count(turn, { rollbacks: 1, ...(cause === "spike" ? { spikes: 1 } : {}) });
  // A manifest that is being written must be finished before its folder is written again.
  const orphans = active.pendingCheckpoints
    .filter(({ complete }) => complete)
    .map((pending) => ({ ...pending, generation: active.generation }));
  abortGeneration(turn);
  update(turn, {
    orphans,
    spike: "",
    waiting: { reason: text, sinceMs: now, notBeforeMs: now, fewerFromMs: now },
  });
  startIfPossible(turn);
}

function incident(turn: Turn, text: string): void {
  update(turn, { incidents: [...turn.state.incidents, text].slice(-shownIncidents) });
}
