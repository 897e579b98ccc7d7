/** One fault thrown at a running fleet, watched until the fleet commits again. */
import type { Fleet } from "./fleet.js";
import { type LedgerView, lostCommits } from "./ledger.js";

/** A fault that is under way. */
export interface Injected {
  /** Unix milliseconds at which it acted; undefined: not yet. */
  readonly actedMs: () => number | undefined;
  /** Whether it is over, apart from the fleet's recovery. Absent: as soon as it has acted. */
  readonly isOver?: () => boolean;
}

export interface Fault {
  /** "worker.prepared.sent kill", "redis-flush". */
  readonly name: string;
  /** Undefined: not possible now. */
  readonly inject: (fleet: Fleet) => Injected | undefined | Promise<Injected | undefined>;
}

/** What became of a fault. */
export interface FaultRecord {
  readonly name: string;
  /** recovered: a later step was committed; ended: the run had its last step before; missed: it did not act in time; stuck: no commit followed. */
  readonly result: "recovered" | "ended" | "missed" | "stuck";
  readonly hasActed: boolean;
  /** Committed steps when it acted. */
  readonly step: number;
  /** Commits that were voided after it, until it was over. */
  readonly lostCommits: number;
  /** From the fault to the next generation, if one followed before the next commit; in seconds. */
  readonly toGeneration: number | null;
  /** From the fault to the next commit of a step that had not been committed, in seconds. */
  readonly toCommit: number | null;
}

/** A process starts, loads its engine and reaches a point of a step in some seconds, on a busy machine. */
const actSeconds = 20;
/** Lease, restarts and the wait for workers: beyond that nobody is coming. */
const recoverySeconds = 60;

/** The ledger is looked at every 20 ms, by a process that is not always on time. */
const mostLookMs = 200;

export async function throwFault(fleet: Fleet, fault: Fault): Promise<FaultRecord> {
  const before = {
    name: fault.name,
    hasActed: false,
    lostCommits: 0,
    step: fleet.ledger.next,
    toGeneration: null,
    toCommit: null,
  };
  const injected = await fault.inject(fleet);
  if (!injected) return { ...before, result: "missed" };
  await fleet.until(actSeconds, () => injected.actedMs() !== undefined || fleet.isOver);
  const actedMs = injected.actedMs();
  if (actedMs === undefined) {
    // It must not act while another one is looked at.
    fleet.disarmAll();
    return { ...before, result: fleet.isOver ? "ended" : "missed" };
  }
  const frontier = frontierAt(fleet, actedMs);
  const isBack = (): boolean => commitAfter(fleet, actedMs, frontier) !== undefined;
  const isOver = (): boolean => injected.isOver?.() ?? true;
  const lostBefore = lostCommits(fleet.ledger.records);
  const done = await fleet.until(recoverySeconds, () => fleet.isOver || (isBack() && isOver()));
  const commitMs = commitAfter(fleet, actedMs, frontier);
  const { ledger } = fleet;
  const generationMs =
    ledger.seenMs[
      ledger.records.findIndex(
        ({ kind }, i) => kind === "generation" && isAfter(ledger, i, actedMs),
      )
    ];
  const isBefore = generationMs !== undefined && generationMs < (commitMs ?? Infinity);
  return {
    name: fault.name,
    hasActed: true,
    result: commitMs !== undefined ? "recovered" : done ? "ended" : "stuck",
    step: frontier,
    lostCommits: lostCommits(fleet.ledger.records) - lostBefore,
    toGeneration: isBefore ? (generationMs - actedMs) / 1000 : null,
    toCommit: commitMs === undefined ? null : (commitMs - actedMs) / 1000,
  };
}

/** Committed steps at that time. */
function frontierAt({ ledger }: Fleet, unixMs: number): number {
  const commit = ledger.records.findLast(
    (record, i) => record.kind === "commit" && !isAfter(ledger, i, unixMs),
  );
  return commit?.kind === "commit" ? commit.step + 1 : 0;
}

/** When a step that had not been committed by then was committed. */
function commitAfter({ ledger }: Fleet, unixMs: number, frontier: number): number | undefined {
  const at = ledger.records.findIndex(
    (record, i) =>
      record.kind === "commit" && record.step >= frontier && isAfter(ledger, i, unixMs),
  );
  return ledger.seenMs[at];
}

/** Seen much later than that, or decided later: what was written just before is seen a little later too. */
function isAfter({ records, seenMs }: LedgerView, i: number, unixMs: number): boolean {
  return (records[i]?.unixMs ?? 0) > unixMs || (seenMs[i] ?? 0) > unixMs + mostLookMs;
}
