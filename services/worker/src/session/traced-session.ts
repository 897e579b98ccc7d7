/** The session's machine, and a trace of it where one is asked for. */
import { openTrace, type Trace } from "@paddock/service-kit";
import { decideWorker } from "./decide-worker.js";
import type { WorkerEvent } from "./worker-event.js";
import {
  initialWorkerState,
  type Turn,
  type WorkerFacts,
  type WorkerState,
} from "./worker-state.js";

/** `begin` once, then `decide` for each event, in order: both as the machine has them, noted before they return. */
export function tracedSession() {
  let trace: Trace | undefined;
  return {
    begin(facts: WorkerFacts): Turn {
      const turn = initialWorkerState(facts);
      trace = openTrace("worker", facts, turn);
      return turn;
    },
    decide(state: WorkerState, event: WorkerEvent): Turn {
      const turn = decideWorker(state, event);
      trace?.note(event, turn);
      return turn;
    },
  };
}
