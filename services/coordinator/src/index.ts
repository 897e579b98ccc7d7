/** The coordinator: membership, decisions, durability of one run. */
export { type Plan, planRun, type WorkerPlan } from "./plan/plan-run.js";
export { decide } from "./run/decide.js";
export { type DurableState, foldRecord, type RunRecord } from "./run/durable.js";
export type { Effect, RunEvent } from "./run/event.js";
export { initialState, type RunState } from "./run/state.js";
export type { Summary } from "./run-dir/summary.js";
export type { CoordinatorResult } from "./runtime/live-run.js";
export {
  type Coordinator,
  type CoordinatorOptions,
  startCoordinator,
} from "./runtime/start-coordinator.js";
