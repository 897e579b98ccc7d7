/** What happens to a worker's session, and what is to be done about it: the two sides of `decideWorker`. */
import type { ErrorCode } from "@paddock/contract";
import type {
  Assignment,
  CoordinatorMessage,
  Decision,
  Prepared,
  Welcome,
  WorkerMessage,
} from "@paddock/proto";

/** Completions carry the generation that they belong to: those of another one have no effect. */
export type WorkerEvent =
  /** A stream to the coordinator is open. */
  | { readonly kind: "connected" }
  | { readonly kind: "disconnected"; readonly reason: string }
  | { readonly kind: "message"; readonly message: CoordinatorMessage }
  /** The shards are there and published. */
  | { readonly kind: "loaded"; readonly generation: number }
  /** A job says that the steps [start, end) may be executed. Comes again when Redis has lost what it knew. */
  | {
      readonly kind: "segment";
      readonly generation: number;
      readonly start: number;
      readonly end: number;
    }
  | {
      readonly kind: "prepared";
      readonly generation: number;
      readonly step: number;
      readonly report: Omit<Prepared, "generation" | "step">;
    }
  /** The decision about `step` is carried out on the shards, and the peers have been told or cannot be. */
  | { readonly kind: "applied"; readonly generation: number; readonly step: number }
  | { readonly kind: "evaluated"; readonly generation: number; readonly step: number }
  /** With generation 0: the run cannot be served at all. */
  | {
      readonly kind: "failed";
      readonly generation: number;
      readonly step: number;
      readonly code: ErrorCode;
      readonly message: string;
    }
  /** Answer to `interrupt`: nothing of the generation runs any more, and its shards can be read. */
  | { readonly kind: "rested"; readonly generation: number }
  /** Somebody wants the worker to go. */
  | { readonly kind: "leave"; readonly reason: string };

export type WorkerEffect =
  | { readonly kind: "connect"; readonly afterMs: number }
  | { readonly kind: "send"; readonly message: WorkerMessage }
  /** Opens the run's images. */
  | { readonly kind: "serve"; readonly welcome: Welcome }
  | { readonly kind: "load"; readonly assignment: Assignment }
  | {
      readonly kind: "compute";
      readonly generation: number;
      readonly step: number;
      /** Loss scale. */
      readonly scale: number;
    }
  | { readonly kind: "apply"; readonly decision: Decision }
  /** Saves the state of `step` committed steps. */
  | { readonly kind: "checkpoint"; readonly generation: number; readonly step: number }
  | {
      readonly kind: "evaluate";
      readonly generation: number;
      readonly step: number;
      /** With all images that the spec names for the run's ends. */
      readonly full: boolean;
    }
  /** Ends what runs, but for an update that has begun. Answered by `rested`. */
  | { readonly kind: "interrupt"; readonly generation: number }
  /** The generation's shards are not needed any more. */
  | { readonly kind: "forget"; readonly generation: number }
  | {
      readonly kind: "segment-done";
      readonly generation: number;
      readonly start: number;
      readonly end: number;
    }
  | { readonly kind: "pictures" }
  | { readonly kind: "end"; readonly finished: boolean; readonly reason: string }
  /** What no new generation can mend. */
  | { readonly kind: "die"; readonly code: ErrorCode; readonly message: string };
