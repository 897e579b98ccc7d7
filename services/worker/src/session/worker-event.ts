/** A worker's session as values: what it remembers, what happens to it, and what is to be done. The sides of `decideWorker`. */
import type { ErrorCode } from "@paddock/contract";
import type {
  Assignment,
  CoordinatorMessage,
  Decision,
  Hello,
  Holding,
  Prepared,
  Welcome,
  WorkerMessage,
} from "@paddock/proto";

/** What stays the same for as long as the process lives. */
export interface WorkerFacts {
  readonly hello: Omit<Hello, "holding">;
  /** How long to try to connect again, in milliseconds; 0: not at all. */
  readonly reconnectMs: number;
}

/** The shards of the newest generation that this worker was a member of, and what is being done with them. */
export interface Current {
  readonly assignment: Assignment;
  /** ending: interrupted, something may still run. over: nothing runs but, at most, the update of a decision that came late. */
  readonly mode: "running" | "ending" | "over";
  readonly activity: "load" | "compute" | "apply" | "evaluate" | null;
  /** Committed steps that the shards hold, once loaded. */
  readonly step: number;
  /** The gradient of `step` is reduced and Prepared was sent. */
  readonly prepared: boolean;
  /** The decision that is being applied, or (ending) will be once nothing else runs. */
  readonly decision: Decision | null;
  /** A decision of this generation was applied: every member had loaded by then. */
  readonly decided: boolean;
  /** An update was begun and not finished: the shards are worth nothing. */
  readonly broken: boolean;
  /** The coordinator ended this generation: no decision about a prepared step follows. */
  readonly aborted: boolean;
  /** Loss scale of `step`. */
  readonly scale: number;
  /** The teacher is to be evaluated before anything else: with all images or not. */
  readonly evaluation: { readonly full: boolean } | null;
  /** The last decision said stop. */
  readonly stopped: boolean;
  /** Steps before this one may be executed. */
  readonly until: number;
  /** Jobs that are not done. */
  readonly jobs: readonly SegmentRange[];
}

export interface SegmentRange {
  readonly start: number;
  readonly end: number;
}

export interface WorkerState {
  readonly facts: WorkerFacts;
  /** down: a connection is asked for as soon as nothing runs. */
  readonly link: "down" | "connecting" | "up";
  /** Attempts to connect since the last welcome. */
  readonly attempts: number;
  /** A stream was open before this one. */
  readonly isKnown: boolean;
  /** The last welcome; null: none yet. */
  readonly welcome: Welcome | null;
  /** The newest generation that this worker was assigned to; 0: none. */
  readonly generation: number;
  readonly current: Current | null;
  /** The holding from which `current` was loaded live: needed until every member of it has loaded. */
  readonly older: Holding | null;
  /** A Held is to be sent once nothing runs. */
  readonly owesHeld: boolean;
  /** Begins once nothing of the generation before it runs. */
  readonly next: Assignment | null;
  /** Why this worker wants to go, or null. */
  readonly leaving: string | null;
  readonly ended: boolean;
}

/** Completions carry their generation; those of another one than the current have no effect. */
export type WorkerEvent =
  | { readonly kind: "connected" }
  /**
   * The stream ended or could not be opened.
   * @property awayMs milliseconds since there last was a session; 0 when it has just broken
   */
  | {
      readonly kind: "disconnected";
      readonly code: ErrorCode;
      readonly reason: string;
      readonly awayMs: number;
    }
  | { readonly kind: "message"; readonly message: CoordinatorMessage }
  | { readonly kind: "loaded"; readonly generation: number }
  /** A job: the steps before `end` may be executed. May come twice, out of order, or again. */
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
  /** The update or skip is done, and published if the generation runs. Comes also when only the publishing failed; `failed` follows then. */
  | { readonly kind: "applied"; readonly generation: number; readonly step: number }
  | { readonly kind: "evaluated"; readonly generation: number; readonly step: number }
  /** Generation 0: before any assignment. */
  | {
      readonly kind: "failed";
      readonly generation: number;
      readonly step: number;
      readonly code: ErrorCode;
      readonly message: string;
    }
  /** Answer to `interrupt`: nothing of the generation runs any more. An update that had begun has been reported before. */
  | { readonly kind: "rested"; readonly generation: number }
  /** A signal. The second one ends the worker at once. */
  | { readonly kind: "leave"; readonly reason: string };

/** Carried out in order. Activities (load, compute, apply, evaluate, interrupt) are answered by their events; `serve` and `pictures` are waited for. */
export type WorkerEffect =
  | { readonly kind: "connect"; readonly afterMs: number }
  | { readonly kind: "send"; readonly message: WorkerMessage }
  /** The run is new, or its spec: prepare its data. */
  | { readonly kind: "serve"; readonly welcome: Welcome }
  /** From the seed, a checkpoint or live holders, then publish; jobs may be taken from now on. */
  | { readonly kind: "load"; readonly assignment: Assignment }
  | {
      readonly kind: "compute";
      readonly generation: number;
      readonly step: number;
      readonly scale: number;
    }
  /** Update or skip. `publish`: the generation goes on, so make the weights of the next step readable. */
  | { readonly kind: "apply"; readonly decision: Decision; readonly publish: boolean }
  /** In the background; what is written is the state now, before any later `apply`. CheckpointWritten or CheckpointFailed follows. */
  | { readonly kind: "checkpoint"; readonly generation: number; readonly step: number }
  | {
      readonly kind: "evaluate";
      readonly generation: number;
      readonly step: number;
      /** At the first and the last step: with all images. */
      readonly full: boolean;
    }
  /** End what runs of this generation, but finish an update that has begun. */
  | { readonly kind: "interrupt"; readonly generation: number }
  /** The shards of this generation are needed no more. */
  | { readonly kind: "forget"; readonly generation: number }
  | {
      readonly kind: "segment-done";
      readonly generation: number;
      readonly start: number;
      readonly end: number;
      readonly stop: boolean;
    }
  /** For the report, by worker 0 of a run that finished. */
  | { readonly kind: "pictures" }
  | { readonly kind: "end"; readonly finished: boolean; readonly reason: string }
  /** What no new generation can mend. */
  | { readonly kind: "die"; readonly code: ErrorCode; readonly message: string };

/** One call of `decideWorker` while it is being worked out. */
export interface WorkerTurn {
  state: WorkerState;
  readonly effects: WorkerEffect[];
}

/** Before anything has happened. The first thing to do is to connect. */
export function initialWorkerState(facts: WorkerFacts): WorkerState {
  return {
    facts,
    link: "connecting",
    attempts: 0,
    isKnown: false,
    welcome: null,
    generation: 0,
    current: null,
    older: null,
    owesHeld: false,
    next: null,
    leaving: null,
    ended: false,
  };
}
