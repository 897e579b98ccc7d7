/** The coordinator's side of the protocol, pure: for the model checker and for replaying traces. */
export { decide } from "./run/decide.js";
export { type DurableState, fold, foldRecord, type RunRecord } from "./run/durable.js";
export type { Effect, RunEvent } from "./run/event.js";
export { owes } from "./run/leases.js";
export { initialState, type RunState } from "./run/state.js";
export { traced } from "./run/traced.js";
