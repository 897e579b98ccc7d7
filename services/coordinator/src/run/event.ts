/** What happens to a run, and what is to be done about it: the two sides of `decide`. */
import type { ErrorCode, Manifest, Range, StepRecord } from "@paddock/contract";
import type {
  CheckpointFailed,
  CheckpointWritten,
  CoordinatorMessage,
  EvaluationDone,
  Failed,
  Held,
  Prepared,
  Progress,
} from "@paddock/proto";
import type { RunRecord } from "./durable.js";
import type { Outcome, WorkerId, WorkerInfo } from "./state.js";

export type RunEvent =
  | { readonly kind: "joined"; readonly worker: WorkerInfo }
  /** Its stream ended, or it said goodbye. */
  | { readonly kind: "gone"; readonly id: WorkerId; readonly reason: string }
  | { readonly kind: "progress"; readonly id: WorkerId; readonly progress: Progress }
  | { readonly kind: "prepared"; readonly id: WorkerId; readonly prepared: Prepared }
  | {
      readonly kind: "checkpoint-written";
      readonly id: WorkerId;
      readonly written: CheckpointWritten;
    }
  | { readonly kind: "checkpoint-failed"; readonly id: WorkerId; readonly failed: CheckpointFailed }
  /** The manifest is durable. */
  | {
      readonly kind: "manifest-written";
      readonly generation: number;
      readonly step: number;
      readonly sha256: string;
    }
  | {
      readonly kind: "manifest-failed";
      readonly generation: number;
      readonly step: number;
      readonly code: ErrorCode;
      readonly reason: string;
    }
  | { readonly kind: "evaluation-done"; readonly id: WorkerId; readonly evaluation: EvaluationDone }
  | { readonly kind: "failed"; readonly id: WorkerId; readonly failure: Failed }
  /** It rests, and says what it holds. */
  | { readonly kind: "held"; readonly id: WorkerId; readonly held: Held }
  | { readonly kind: "leaving"; readonly id: WorkerId; readonly reason: string }
  /** Time passes: leases and waits are looked at. */
  | { readonly kind: "tick" }
  /** This process stood still for so long: what it did not hear in that time is nobody's fault. */
  | { readonly kind: "stood-still"; readonly ms: number }
  | { readonly kind: "drain"; readonly reason: string }
  | { readonly kind: "pause" }
  | { readonly kind: "resume" }
  | { readonly kind: "scale"; readonly workers: number }
  | { readonly kind: "checkpoint-now" }
  /** An effect could not be carried out. */
  | { readonly kind: "broken"; readonly code: ErrorCode; readonly reason: string };

/** Carried out in order; `append` is durable before the next one starts. */
export type Effect =
  | { readonly kind: "append"; readonly record: RunRecord }
  | { readonly kind: "send"; readonly id: WorkerId; readonly message: CoordinatorMessage }
  /** Ends a worker's session with an error; absent: after what was sent. */
  | {
      readonly kind: "dismiss";
      readonly id: WorkerId;
      readonly code?: ErrorCode;
      readonly reason: string;
    }
  | { readonly kind: "write-step"; readonly record: StepRecord }
  /** Drops the records of `step` and later. */
  | { readonly kind: "truncate-steps"; readonly step: number }
  /** Makes the records so far durable. */
  | { readonly kind: "sync-steps" }
  /** In the background; answered by `manifest-written` or `manifest-failed`. */
  | { readonly kind: "write-manifest"; readonly manifest: Manifest }
  /** Deletes every checkpoint but these. */
  | { readonly kind: "keep-checkpoints"; readonly steps: readonly number[] }
  /** These segments of a generation, and no others, shall have jobs: one per worker. */
  | {
      readonly kind: "segments";
      readonly generation: number;
      readonly workers: number;
      readonly segments: readonly Range[];
    }
  | {
      readonly kind: "log";
      readonly level: "info" | "warn" | "error";
      readonly event: string;
      readonly fields: Readonly<Record<string, unknown>>;
    }
  | { readonly kind: "end"; readonly outcome: Outcome };
