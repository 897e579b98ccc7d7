/** What must hold between the traces of one run's processes. */
import { type DurableState, foldRecord, type RunRecord } from "@paddock/coordinator/protocol";
import { DecisionKind } from "@paddock/proto";
import { digestOf } from "@paddock/service-kit";
import type { CoordinatorReplay } from "./replay-coordinator.js";
import type { WorkerReplay } from "./replay-worker.js";

/** @param coordinators of one run, in any order. @returns what is broken */
export function checkRun(
  coordinators: readonly CoordinatorReplay[],
  workers: readonly WorkerReplay[],
): string[] {
  const inOrder = [...coordinators].sort((a, b) => a.startMs - b.startMs);
  if (inOrder.length === 0) {
    return ["no coordinator has left a trace: whole runs are recorded, or nothing can be compared"];
  }
  const { records, violations } = ledgerOf(inOrder);
  return [
    ...violations,
    ...untold(records, workers),
    ...unsaid(inOrder, workers),
    ...unexplainedRollbacks(inOrder, workers),
  ];
}

/** The run's ledger as the coordinators after each other have written it: each must have found what those before it appended. */
function ledgerOf(coordinators: readonly CoordinatorReplay[]) {
  const records: RunRecord[] = [];
  const violations: string[] = [];
  coordinators.forEach((mine, i) => {
    const next = coordinators[i + 1];
    const kept = next ? keptRecords(mine, next.found) : mine.records.length;
    if (kept === undefined) {
      const [was, is] = [mine.sure, (next as CoordinatorReplay).found].map(
        ({ generation, next: step }) => `generation ${generation}, next step ${step}`,
      );
      violations.push(
        `a coordinator goes on from what was appended before it: expected ${was} or later, received ${is}`,
      );
    }
    records.push(...mine.records.slice(0, kept));
  });
  return { records, violations };
}

/** How many of its records the next coordinator found; undefined: what that one found cannot be. */
function keptRecords(mine: CoordinatorReplay, found: DurableState): number | undefined {
  const wanted = ledgerDigest(found);
  let durable = mine.sure;
  let kept = mine.records.length - mine.unsure.length;
  for (const record of mine.unsure) {
    if (ledgerDigest(durable) === wanted) return kept;
    durable = foldRecord(durable, record);
    kept++;
  }
  return ledgerDigest(durable) === wanted ? kept : undefined;
}

/** As it is read from JSON. A resumed run may have another spec. */
function ledgerDigest(durable: DurableState): string {
  return digestOf(JSON.parse(JSON.stringify({ ...durable, spec: null })));
}

/** Decisions that workers were told and that are not in the ledger, or are another one there. */
function untold(records: readonly RunRecord[], workers: readonly WorkerReplay[]): string[] {
  const known = new Map<string, DecisionKind>();
  for (const record of records) {
    if (record.kind !== "commit") continue;
    const { DECISION_KIND_COMMIT, DECISION_KIND_SKIP } = DecisionKind;
    const kind = record.skipped ? DECISION_KIND_SKIP : DECISION_KIND_COMMIT;
    known.set(`${record.generation}.${record.step}`, kind);
  }
  return workers.flatMap(({ told }) =>
    told
      .filter(({ kind }) => kind !== DecisionKind.DECISION_KIND_ABORT)
      .filter(({ generation, step, kind }) => known.get(`${generation}.${step}`) !== kind)
      .map(({ key }) => `${key}, which the ledger does not have`),
  );
}

/** Messages that were heard and that nobody said. */
function unsaid(
  coordinators: readonly CoordinatorReplay[],
  workers: readonly WorkerReplay[],
): string[] {
  const lists = (sets: readonly Set<string>[]): Set<string> =>
    new Set(sets.flatMap((set) => [...set]));
  const [toWorkers, toCoordinators] = [
    lists(coordinators.map(({ said }) => said)),
    lists(workers.map(({ said }) => said)),
  ];
  const atWorkers = lists(workers.map(({ heard }) => heard));
  const atCoordinators = lists(coordinators.map(({ heard }) => heard));
  return [
    ...[...atWorkers].filter((key) => !toWorkers.has(key)).map((key) => `${key}: never sent`),
    ...[...atCoordinators]
      .filter((key) => !toCoordinators.has(key))
      .map((key) => `${key}: heard, and never said`),
  ];
}

/** Broken streams, dead coordinators and an emptied Redis take nothing back. */
function unexplainedRollbacks(
  coordinators: readonly CoordinatorReplay[],
  workers: readonly WorkerReplay[],
): string[] {
  const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
  const rollbacks = sum(coordinators.map((each) => each.rollbacks));
  const excuses = sum(coordinators.map((each) => each.excuses));
  const deaths = workers.filter(({ hasEnded }) => !hasEnded).length;
  if (rollbacks === 0 || excuses + deaths > 0) return [];
  return ["broken streams and dead coordinators take nothing back"];
}
