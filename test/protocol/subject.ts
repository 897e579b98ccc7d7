/** What is checked: the real `decide` and `decideWorker`, or copies of them with a bug. */
import { decide, foldRecord, initialState } from "@paddock/coordinator";
import { decideWorker, initialWorkerState, readableHoldings } from "@paddock/worker";

export interface Subject {
  readonly decide: typeof decide;
  readonly foldRecord: typeof foldRecord;
  readonly initialState: typeof initialState;
  readonly decideWorker: typeof decideWorker;
  readonly initialWorkerState: typeof initialWorkerState;
  readonly readableHoldings: typeof readableHoldings;
}

export const real: Subject = {
  decide,
  foldRecord,
  initialState,
  decideWorker,
  initialWorkerState,
  readableHoldings,
};
