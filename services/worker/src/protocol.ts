/** The worker's side of the protocol, pure: for the model checker and for replaying traces. */
export { decideWorker } from "./session/decide-worker.js";
export type { WorkerEffect, WorkerEvent } from "./session/worker-event.js";
export { initialWorkerState, type WorkerState } from "./session/worker-state.js";
