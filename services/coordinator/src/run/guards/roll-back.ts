/** The run goes back to a checkpoint, by its own decision: in the ledger first, then to everyone. */
import type { Offender } from "@paddock/contract";
import type { DurableState } from "../durable.js";
import { abortGeneration, append, count, log, type Turn, update } from "../turn.js";
import { type GuardAction, guardAction } from "./plan.js";

type GoBack = Extract<GuardAction, { kind: "rollback" }>;

/** What a coordinator that was killed between a commit and the rollback after it still has to do. Nothing is in force. */
export function goBackIfOwed(turn: Turn): void {
  const { durable } = turn.state;
  const offender = lastOffender(durable);
  const isSkipped = durable.history.skips.at(-1)?.step === durable.next - 1;
  if (isSkipped && !offender) return; // an overflow
  const action = guardAction(durable, offender);
  if (action.kind === "rollback") rollBack(turn, action, offender ?? null);
}

/** Back to a checkpoint. Ends the generation in force; what it still wrote of later steps is void. The caller starts the next one. */
export function rollBack(turn: Turn, action: GoBack, offender: Offender | null): void {
  const { cause, message: reason, toStep, skip } = action;
  const { now } = turn;
  const { active, waiting, orphans } = turn.state;
  const step = turn.state.durable.next - 1;
  append(turn, { kind: "rollback", step, toStep, skip, cause, reason, offender, unixMs: now });
  log(turn, "warn", "rollback", { step, toStep, skip, cause, reason, offender });
  count(turn, { rollbacks: 1, ...(cause === "spike" ? { spikes: 1 } : {}) });
  const next = `back to step ${toStep}: ${reason}`;
  update(turn, { spike: "", waiting: { ...waiting, reason: next } });
  if (!active) return;
  // A manifest that is being written must be finished before its folder is written again.
  const unfinished = active.pendingCheckpoints
    .filter(({ complete }) => complete)
    .map((pending) => ({ ...pending, generation: active.generation }));
  abortGeneration(turn);
  update(turn, {
    orphans: [...orphans, ...unfinished],
    barren: 0,
    waiting: {
      reason: next,
      sinceMs: now,
      notBeforeMs: now,
      fewerFromMs: now,
      fewerHoldersFromMs: now,
    },
  });
}

/** What made the last step bad; undefined: it was good, or an overflow. */
function lastOffender({ lastBad, history, next }: DurableState): Offender | undefined {
  const skip = history.skips.at(-1);
  const isBad = skip?.step === next - 1 && skip.bad;
  return isBad && lastBad?.step === next - 1 ? lastBad.offender : undefined;
}
