/** Plays events to `decideWorker`, for tests. */
import {
  type Assignment,
  type CoordinatorMessage,
  type Decision,
  DecisionKind,
  type Holding,
  type Prepared,
  type Welcome,
} from "@paddock/proto";
import {
  initialWorkerState,
  type WorkerEffect,
  type WorkerEvent,
  type WorkerState,
} from "./worker-event.js";
import { decideWorker } from "./worker-state.js";

const hello = {
  version: { major: 1, minor: 0 },
  workerName: "w",
  host: "h",
  pid: 1,
  engine: "torch",
  device: "cpu",
  threads: 1,
  peerAddress: "h:1",
};
const facts = { hello, reconnectMs: 300_000 };

export const welcome: Welcome = {
  version: { major: 1, minor: 0 },
  runId: "run",
  specJson: "{}",
  leaseSeconds: 10,
  runDir: "/run",
  redisUrl: "redis://h",
};

export function assignment(patch: Partial<Assignment> = {}): Assignment {
  return {
    generation: 1,
    worker: 0,
    workers: 2,
    startStep: 0,
    loadCheckpoint: false,
    peers: [],
    scale: 8,
    goodSteps: 0,
    segmentQueue: "q",
    evaluateFirst: false,
    manifestSha256: "",
    live: null,
    shadow: -1,
    ...patch,
  };
}

export function liveAssignment(generation: number, from: number, startStep: number): Assignment {
  const live = { generation: from, workers: 2, holders: [] };
  return assignment({ generation, startStep, live });
}

export function decision(
  generation: number,
  step: number,
  patch: Partial<Decision> = {},
): Decision {
  return {
    generation,
    step,
    kind: DecisionKind.DECISION_KIND_COMMIT,
    gradNorm: {},
    scale: 4,
    goodSteps: 0,
    checkpoint: false,
    evaluate: false,
    stop: false,
    ...patch,
  };
}

export const abort = DecisionKind.DECISION_KIND_ABORT;
const report = { finite: true } as Omit<Prepared, "generation" | "step">;

/** Plays events one after the other; says what the last one did. */
export class Play {
  state: WorkerState = initialWorkerState(facts);

  do(event: WorkerEvent): readonly WorkerEffect[] {
    const { state, effects } = decideWorker(this.state, event);
    this.state = state;
    return effects;
  }

  hear(message: CoordinatorMessage): readonly WorkerEffect[] {
    return this.do({ kind: "message", message });
  }

  assign(given: Assignment): readonly WorkerEffect[] {
    return this.hear({ kind: "assignment", assignment: given });
  }

  decide(given: Decision): readonly WorkerEffect[] {
    return this.hear({ kind: "decision", decision: given });
  }

  disconnect(): readonly WorkerEffect[] {
    return this.do({ kind: "disconnected", code: "worker-lost", reason: "cut", awayMs: 0 });
  }

  join(): this {
    this.do({ kind: "connected" });
    this.hear({ kind: "welcome", welcome });
    return this;
  }

  /** Loaded, with leave to execute steps before 10: computes its first step. */
  begin(given: Assignment = assignment()): this {
    const { generation } = given;
    this.assign(given);
    this.do({ kind: "loaded", generation });
    this.do({ kind: "segment", generation, start: given.startStep, end: 10 });
    return this;
  }

  prepare(generation: number, step: number): readonly WorkerEffect[] {
    return this.do({ kind: "prepared", generation, step, report });
  }

  /** Steps from `from` up to but not including `to`. */
  steps(generation: number, from: number, to: number): this {
    for (let step = from; step < to; step++) {
      this.prepare(generation, step);
      this.decide(decision(generation, step));
      this.do({ kind: "applied", generation, step });
    }
    return this;
  }

  rest(generation: number): readonly WorkerEffect[] {
    return this.do({ kind: "rested", generation });
  }
}

export const kinds = (effects: readonly WorkerEffect[]): string[] =>
  effects.map((effect) => (effect.kind === "send" ? `send ${effect.message.kind}` : effect.kind));

export function heldIn(effects: readonly WorkerEffect[]): Holding | null | undefined {
  for (const effect of effects) {
    if (effect.kind === "send" && effect.message.kind === "held")
      return effect.message.held.holding;
    if (effect.kind === "send" && effect.message.kind === "hello")
      return effect.message.hello.holding;
  }
  return undefined;
}

export const shards = (generation: number, step: number, prepared = false): Holding => {
  return { generation, worker: 0, workers: 2, step, prepared, shadow: -1 };
};
