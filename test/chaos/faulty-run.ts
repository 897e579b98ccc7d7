/** A run under faults, one after the other, until it has its last step; then judged against the undisturbed run. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { Fleet } from "./fleet.js";
import { type Fault, type FaultRecord, throwFault } from "./inject.js";
import { differenceOf, type Outcome, outcomeOf } from "./outcome.js";
import type { ChaosRun } from "./spec.js";

export interface FaultyRun {
  /** Folder of everything that the run wrote; removed when the promise held. */
  readonly folder: string;
  readonly records: readonly FaultRecord[];
  readonly outcome: Outcome | undefined;
  /** What is not as in the undisturbed run, or why there is nothing to compare; undefined: all is. */
  readonly broken: string | undefined;
}

/** The fleet has lost nobody for good: it needs its restarts and what is left of its steps. */
const lastSeconds = 180;
/** A worker that has just been killed is back by then. */
const wholeSeconds = 20;

/**
 * @param next the next fault; undefined: no more. Asked while the run goes on
 * @param onRecord told of every fault as soon as it is over
 */
export async function runUnderFaults(o: {
  readonly folder: string;
  readonly run: ChaosRun;
  readonly undisturbed: Outcome;
  readonly next: (fleet: Fleet) => Fault | undefined;
  readonly onRecord: (record: FaultRecord) => void;
  /** Waits before each fault until all workers are members again: what follows is the work of that fault alone. */
  readonly oneByOne?: boolean;
  readonly keep: boolean;
}): Promise<FaultyRun> {
  const startedMs = Date.now();
  const fleet = await Fleet.start(o.folder, o.run);
  const records: FaultRecord[] = [];
  const die = (): void => fleet.killAll();
  process.once("exit", die);
  try {
    const whole = async (): Promise<void> => {
      if (o.oneByOne) await fleet.until(wholeSeconds, () => fleet.isWhole(o.run.workers));
    };
    let broken = await throwAll(fleet, whole, o.next, (record) => {
      records.push(record);
      o.onRecord(record);
    });
    if (broken === undefined && !(await fleet.until(lastSeconds, () => fleet.isOver))) {
      broken = `the run did not end within ${lastSeconds} s after the last fault; it stands at step ${fleet.ledger.next} of ${o.run.steps}, the coordinator's last exit: ${fleet.coordinatorEnd}`;
    }
    const outcome = fleet.isOver ? outcomeOf(fleet, startedMs) : undefined;
    broken ??= outcome && differenceOf(outcome, o.undisturbed);
    await fleet.close();
    if (broken === undefined && !o.keep) rmSync(o.folder, { recursive: true, force: true });
    return { folder: o.folder, records, outcome, broken };
  } finally {
    process.off("exit", die);
    await fleet.close();
  }
}

/** Why the fleet is stuck, if it is. */
async function throwAll(
  fleet: Fleet,
  ready: () => Promise<void>,
  next: (fleet: Fleet) => Fault | undefined,
  onRecord: (record: FaultRecord) => void,
): Promise<string | undefined> {
  for (;;) {
    await ready();
    const fault = fleet.isOver ? undefined : next(fleet);
    if (!fault) return undefined;
    const record = await throwFault(fleet, fault);
    onRecord(record);
    if (record.result === "stuck") {
      return `no commit followed "${record.name}" at step ${record.step}; see ${join(fleet.folder, "logs")}`;
    }
  }
}
