/**
 * What guards remember of committed steps: skipped ones, and losses. It is part of the fold of the ledger, cut where a run restarts, so that
 * a decision is the same whatever happened to the coordinator and its workers. Pure.
 */
import type { LedgerRecord, RunSpec } from "@paddock/contract";

export interface LossAt {
  readonly step: number;
  readonly loss: number;
}

export interface GuardHistory {
  /** Steps whose update was skipped, ascending; `bad`: not for an overflow of fp16. */
  readonly skips: readonly { readonly step: number; readonly bad: boolean }[];
  /** Losses of the others, ascending by step; empty unless spikes are looked for. */
  readonly losses: readonly LossAt[];
}

export const noHistory: GuardHistory = { skips: [], losses: [] };

export function withCommit(
  { skips, losses }: GuardHistory,
  record: Extract<LedgerRecord, { kind: "commit" }>,
): GuardHistory {
  const { step, skipped, offender, loss } = record;
  if (skipped) {
    // Records of older versions do not say why: in doubt it was an overflow.
    const bad = offender !== undefined && offender.reason !== "overflow";
    return { skips: [...skips, { step, bad }], losses };
  }
  return loss === undefined ? { skips, losses } : { skips, losses: [...losses, { step, loss }] };
}

/** Steps from `next` on are computed again: what is known of them is void. */
export function rewindTo({ skips, losses }: GuardHistory, next: number): GuardHistory {
  return {
    skips: skips.filter(({ step }) => step < next),
    losses: losses.filter(({ step }) => step < next),
  };
}

/** Forgets what no decision after a restart from `floor` or later can need. */
export function trimmed(
  { skips, losses }: GuardHistory,
  spec: RunSpec,
  floor: number,
): GuardHistory {
  const { maxSkipsInRow, spike } = spec.guards;
  const before = losses.findIndex(({ step }) => step >= floor);
  const needed = spike ? spike.window + spike.steps + 1 : 0;
  const first = Math.max(0, (before < 0 ? losses.length : before) - needed);
  return {
    skips: skips.filter(({ step }) => step >= floor - maxSkipsInRow),
    losses: losses.slice(first),
  };
}

/** The steps in a row before `next` that were skipped and bad, without overflows among them; ascending. */
export function badRow({ skips }: GuardHistory, next: number): number[] {
  const row: number[] = [];
  let expected = next - 1;
  for (const { step, bad } of skips.toReversed()) {
    if (step !== expected) break;
    if (bad) row.unshift(step);
    expected -= 1;
  }
  return row;
}
