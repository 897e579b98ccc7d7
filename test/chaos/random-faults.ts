/** `--faults N --seed S`: N random faults, in runs of some twenty each. */
import { join } from "node:path";
import { rngOf } from "@paddock/contract";
import { drawFault } from "./faults.js";
import { type FaultyRun, runUnderFaults } from "./faulty-run.js";
import type { FaultRecord } from "./inject.js";
import type { Outcome } from "./outcome.js";
import type { ChaosRun } from "./spec.js";

export interface RandomFaults {
  readonly folder: string;
  readonly run: ChaosRun;
  readonly undisturbed: Outcome;
  readonly faults: number;
  readonly seed: number;
  /** The first run's number: its faults are drawn from (seed, number). */
  readonly from: number;
  readonly keep: boolean;
  readonly onRecord: (record: FaultRecord, runNumber: number) => void;
  readonly onRun: (run: FaultyRun, runNumber: number) => void;
}

/** Of one run: then its state is compared. */
const faultsPerRun = 20;

/** Runs until so many faults have acted; a fault that a run's end has overtaken does not count. */
export async function throwRandomFaults(o: RandomFaults): Promise<FaultyRun[]> {
  const runs: FaultyRun[] = [];
  let left = o.faults;
  for (let number = o.from; left > 0; number++) {
    const rng = rngOf(o.seed, number);
    let here = 0;
    const run = await runUnderFaults({
      ...o,
      folder: join(o.folder, `faults-${number}`),
      next: () => (here < Math.min(faultsPerRun, left) ? drawFault(rng) : undefined),
      onRecord: (record) => {
        if (record.hasActed) here++;
        o.onRecord(record, number);
      },
    });
    runs.push(run);
    o.onRun(run, number);
    left -= here;
  }
  return runs;
}
