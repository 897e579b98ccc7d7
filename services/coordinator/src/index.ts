/** The coordinator: membership, decisions, durability of one run. */
export type { CoordinatorSecurity } from "./api/admission.js";
export { lockRun } from "./ledger/lock.js";
export { type Plan, planRun, type WorkerPlan } from "./plan/plan-run.js";
export { type DurableState, fold, type RunRecord } from "./run/durable.js";
export { addJoinToken } from "./run-dir/join-tokens.js";
export type { Summary } from "./run-dir/summary.js";
export type { CoordinatorResult } from "./runtime/live-run.js";
export {
  type Coordinator,
  type CoordinatorOptions,
  startCoordinator,
} from "./runtime/start-coordinator.js";
