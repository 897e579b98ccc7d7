import {
  type Assignment,
  type CoordinatorMessage,
  type Decision,
  DecisionKind,
  type Holding,
  type Prepared,
} from "@paddock/proto";
import { expect, test } from "vitest";
import { decideWorker } from "./decide-worker.js";
import type { WorkerEffect, WorkerEvent } from "./worker-event.js";
import { initialWorkerState, type WorkerState } from "./worker-state.js";

const facts = {
  version: { major: 2, minor: 0 },
  workerName: "w",
  host: "h",
  pid: 1,
  engine: "e",
  device: "cpu",
  threads: 1,
  peerAddress: "h:1",
};
const report = {} as Omit<Prepared, "generation" | "step">;

function assignment(changes: Partial<Assignment> = {}): Assignment {
  return {
    generation: 1,
    worker: 0,
    workers: 2,
    startStep: 0,
    loadCheckpoint: false,
    peers: [],
    scale: 4,
    goodSteps: 0,
    segmentQueue: "q",
    evaluateFirst: false,
    manifestSha256: "",
    live: null,
    shadow: -1,
    rankCuts: [],
    checkpointFirst: false,
    leftOut: [],
    ...changes,
  };
}

function decision(changes: Partial<Decision> = {}): CoordinatorMessage {
  return {
    kind: "decision",
    decision: {
      generation: 1,
      step: 0,
      kind: DecisionKind.DECISION_KIND_COMMIT,
      gradNorm: {},
      scale: 4,
      goodSteps: 1,
      checkpoint: false,
      evaluate: false,
      stop: false,
      ...changes,
    },
  };
}

const abort = (generation: number): CoordinatorMessage =>
  decision({ generation, kind: DecisionKind.DECISION_KIND_ABORT });

/** A session that is told one thing after the other. */
class Session {
  state: WorkerState;
  effects: readonly WorkerEffect[];

  constructor() {
    const first = initialWorkerState(facts);
    this.state = first.state;
    this.effects = first.effects;
  }

  tell(...events: WorkerEvent[]): readonly WorkerEffect[] {
    const all: WorkerEffect[] = [];
    for (const event of events) {
      const { state, effects } = decideWorker(this.state, event);
      this.state = state;
      all.push(...effects);
    }
    this.effects = all;
    return all;
  }

  hear(...messages: CoordinatorMessage[]): readonly WorkerEffect[] {
    return this.tell(...messages.map((message) => ({ kind: "message", message }) as const));
  }

  /** Connected, welcome, and so far that the step is prepared. */
  static prepared(changes: Partial<Assignment> = {}): Session {
    const session = new Session();
    const { generation, startStep: step } = assignment(changes);
    session.tell({ kind: "connected" });
    session.hear(welcome, { kind: "assignment", assignment: assignment(changes) });
    session.tell(
      { kind: "loaded", generation },
      { kind: "segment", generation, start: step, end: 10 },
      { kind: "prepared", generation, step, report },
    );
    return session;
  }
}

const welcome: CoordinatorMessage = {
  kind: "welcome",
  welcome: {
    version: null,
    runId: "r",
    specJson: '{"steps":10}',
    leaseSeconds: 1,
    runDir: "",
    checkpointRoot: "",
    redisUrl: "",
  },
};

function sent(effects: readonly WorkerEffect[], kind: string) {
  return effects.flatMap((e) => (e.kind === "send" && e.message.kind === kind ? [e.message] : []));
}

function kinds(effects: readonly WorkerEffect[]): string[] {
  return effects.map((e) => (e.kind === "send" ? `send ${e.message.kind}` : e.kind));
}

const held = (changes: Partial<Holding> = {}): Holding => ({
  generation: 1,
  worker: 0,
  workers: 2,
  step: 0,
  prepared: true,
  shadow: -1,
  runId: "r",
  ...changes,
});

test("hello, welcome, assignment, segment, step after step", () => {
  const session = new Session();
  expect(kinds(session.effects)).toEqual(["connect"]);
  expect(kinds(session.tell({ kind: "connected" }))).toEqual(["send hello"]);
  expect(kinds(session.hear(welcome))).toEqual(["serve"]);
  expect(kinds(session.hear({ kind: "assignment", assignment: assignment() }))).toEqual(["load"]);
  expect(session.tell({ kind: "loaded", generation: 1 })).toEqual([]);
  const segment = { kind: "segment", generation: 1, start: 0, end: 2 } as const;
  expect(session.tell(segment)).toEqual([{ kind: "compute", generation: 1, step: 0, scale: 4 }]);
  session.tell({ kind: "prepared", generation: 1, step: 0, report });
  expect(kinds(session.effects)).toEqual(["send prepared"]);
  expect(kinds(session.hear(decision({ scale: 8 })))).toEqual(["apply"]);
  expect(session.tell({ kind: "applied", generation: 1, step: 0 })).toEqual([
    { kind: "compute", generation: 1, step: 1, scale: 8 },
  ]);
  session.tell({ kind: "prepared", generation: 1, step: 1, report });
  session.hear(decision({ step: 1, checkpoint: true }));
  // The segment is over, and the next one has not come.
  expect(kinds(session.tell({ kind: "applied", generation: 1, step: 1 }))).toEqual([
    "segment-done",
    "checkpoint",
  ]);
  expect(kinds(session.tell(segment))).toEqual(["segment-done"]);
});

test.each([
  ["another generation", { generation: 2 }],
  ["another step", { step: 1 }],
])("a decision of %s changes nothing", (_what, changes) => {
  const session = Session.prepared();
  const before = session.state;
  expect(session.hear(decision(changes))).toEqual([]);
  expect(session.state.running).toEqual(before.running);
});

test("a decision that comes twice is applied once, and one before the step is prepared not at all", () => {
  const session = Session.prepared();
  session.hear(decision());
  expect(session.hear(decision())).toEqual([]);
  session.tell({ kind: "applied", generation: 1, step: 0 });
  expect(session.hear(decision({ step: 1 }))).toEqual([]);
});

test("completions of another generation, and older assignments, are void", () => {
  const session = Session.prepared({ generation: 5 });
  const before = session.state;
  session.tell(
    { kind: "loaded", generation: 4 },
    { kind: "prepared", generation: 4, step: 0, report },
    { kind: "applied", generation: 4, step: 0 },
    { kind: "rested", generation: 4 },
    { kind: "failed", generation: 4, step: 0, code: "exchange-timeout", message: "late" },
  );
  session.hear(abort(4), { kind: "assignment", assignment: assignment({ generation: 5 }) });
  expect(session.state).toEqual(before);
});

test("abort: what runs is interrupted, then it says what it holds, prepared or not", () => {
  const session = Session.prepared();
  expect(kinds(session.hear(abort(1)))).toEqual(["interrupt"]);
  expect(sent(session.tell({ kind: "rested", generation: 1 }), "held")).toEqual([
    { kind: "held", held: { generation: 1, holdings: [held()] } },
  ]);

  const applied = Session.prepared();
  applied.hear(decision());
  // The update ends before the worker rests.
  applied.hear(abort(1));
  applied.tell({ kind: "applied", generation: 1, step: 0 }, { kind: "rested", generation: 1 });
  expect(applied.state.holdings).toEqual([held({ step: 1, prepared: false })]);
});

test("an update that has begun and did not end leaves nothing to hold", () => {
  const session = Session.prepared();
  session.hear(decision());
  session.tell(
    { kind: "applied", generation: 1, step: 0 },
    { kind: "prepared", generation: 1, step: 1, report },
  );
  session.hear(decision({ step: 1 }), abort(1));
  const effects = session.tell({ kind: "rested", generation: 1 });
  expect(kinds(effects)).toEqual(["forget", "send held"]);
  expect(session.state.holdings).toEqual([]);
});

test("a missed decision about what is held is applied; one about anything else is not", () => {
  const session = Session.prepared();
  session.hear(abort(1));
  session.tell({ kind: "rested", generation: 1 });
  expect(session.hear(decision({ step: 1 }), decision({ generation: 2 }))).toEqual([]);
  expect(kinds(session.hear(decision()))).toEqual(["apply"]);
  expect(sent(session.tell({ kind: "applied", generation: 1, step: 0 }), "held")).toEqual([
    { kind: "held", held: { generation: 1, holdings: [held({ step: 1, prepared: false })] } },
  ]);
});

test("older shards are kept until the first decision of the generation that was made from them", () => {
  const session = Session.prepared();
  session.hear(decision(), abort(1));
  session.tell({ kind: "applied", generation: 1, step: 0 }, { kind: "rested", generation: 1 });
  const live = { generation: 1, workers: 2, holders: [] };
  const next = assignment({ generation: 2, startStep: 1, live });
  expect(kinds(session.hear({ kind: "assignment", assignment: next }))).toEqual(["load"]);
  session.tell(
    { kind: "loaded", generation: 2 },
    { kind: "segment", generation: 2, start: 1, end: 10 },
    { kind: "prepared", generation: 2, step: 1, report },
  );
  // Both are told: the step may have been committed or not.
  session.hear(abort(2));
  session.tell({ kind: "rested", generation: 2 });
  expect(session.state.holdings.map(({ generation }) => generation)).toEqual([1, 2]);

  const committed = Session.prepared();
  committed.hear(decision(), abort(1));
  committed.tell({ kind: "applied", generation: 1, step: 0 }, { kind: "rested", generation: 1 });
  committed.hear({ kind: "assignment", assignment: next });
  committed.tell(
    { kind: "loaded", generation: 2 },
    { kind: "segment", generation: 2, start: 1, end: 10 },
    { kind: "prepared", generation: 2, step: 1, report },
  );
  expect(kinds(committed.hear(decision({ generation: 2, step: 1 })))).toEqual(["forget", "apply"]);
});

test("a generation from a checkpoint drops what is held", () => {
  const session = Session.prepared();
  session.hear(abort(1));
  session.tell({ kind: "rested", generation: 1 });
  const next = assignment({ generation: 2, loadCheckpoint: true });
  expect(kinds(session.hear({ kind: "assignment", assignment: next }))).toEqual(["forget", "load"]);
});

test("a broken stream: it rests, then says hello with what it holds; pauses grow", () => {
  const session = Session.prepared();
  expect(session.tell({ kind: "disconnected", reason: "cut" })).toEqual([
    { kind: "interrupt", generation: 1 },
    { kind: "connect", afterMs: 100 },
  ]);
  // The stream is there before the worker has come to rest: Hello waits.
  expect(session.tell({ kind: "connected" })).toEqual([]);
  const [hello] = sent(session.tell({ kind: "rested", generation: 1 }), "hello");
  expect(hello).toMatchObject({ hello: { workerName: "w", holdings: [held()] } });
  expect(session.tell({ kind: "disconnected", reason: "cut" })).toEqual([
    { kind: "connect", afterMs: 200 },
  ]);
});

test("another run makes what is held worthless", () => {
  const session = Session.prepared();
  session.tell({ kind: "disconnected", reason: "cut" }, { kind: "rested", generation: 1 });
  session.tell({ kind: "connected" });
  const other = { ...welcome, welcome: { ...welcome.welcome, runId: "other" } };
  expect(kinds(session.hear(other as CoordinatorMessage))).toEqual(["forget", "serve"]);
  expect(session.state.holdings).toEqual([]);
});

test("what a new generation can mend is reported, all else ends the worker", () => {
  const failure = { kind: "failed", generation: 1, step: 0, message: "x" } as const;
  const mendable = Session.prepared();
  expect(kinds(mendable.tell({ ...failure, code: "exchange-timeout" }))).toEqual(["send failed"]);
  expect(kinds(mendable.hear(abort(1)))).toEqual(["interrupt"]);
  const hopeless = Session.prepared();
  expect(kinds(hopeless.tell({ ...failure, code: "out-of-memory" }))).toEqual([
    "send failed",
    "die",
  ]);
});

test("leaving: it says so and works on until it is let go; without a coordinator it goes at once", () => {
  const session = Session.prepared();
  expect(kinds(session.tell({ kind: "leave", reason: "SIGTERM" }))).toEqual(["send leave"]);
  expect(kinds(session.hear(decision()))).toEqual(["apply"]);
  const shutdown = { finished: false, reason: "left the fleet" };
  expect(session.hear({ kind: "shutdown", shutdown })).toEqual([{ kind: "end", ...shutdown }]);
  expect(session.tell({ kind: "connected" })).toEqual([]);
  const alone = new Session();
  expect(kinds(alone.tell({ kind: "leave", reason: "SIGTERM" }))).toEqual(["end"]);
});

test("worker 0 makes the pictures of a finished run; evaluation comes before the next step", () => {
  const session = Session.prepared();
  session.hear(decision({ evaluate: true, stop: true }));
  expect(kinds(session.tell({ kind: "applied", generation: 1, step: 0 }))).toEqual([
    "segment-done",
    "evaluate",
  ]);
  expect(session.tell({ kind: "evaluated", generation: 1, step: 1 })).toEqual([]);
  const shutdown = { finished: true, reason: "finished" };
  expect(kinds(session.hear({ kind: "shutdown", shutdown }))).toEqual(["pictures", "end"]);
});
