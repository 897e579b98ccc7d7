import { describe, expect, it } from "vitest";
import {
  abort,
  assignment,
  decision,
  heldIn,
  kinds,
  liveAssignment,
  Play,
  shards,
  welcome,
} from "./testing.js";
import { readableHoldings } from "./worker-generation.js";
import { decideWorker } from "./worker-state.js";

describe("a generation", () => {
  it("loads, computes, reports, applies, and goes on", () => {
    const play = new Play().join();
    expect(kinds(play.assign(assignment()))).toEqual(["load"]);
    expect(kinds(play.do({ kind: "loaded", generation: 1 }))).toEqual([]);
    expect(play.do({ kind: "segment", generation: 1, start: 0, end: 2 })).toEqual([
      { kind: "compute", generation: 1, step: 0, scale: 8 },
    ]);
    expect(kinds(play.prepare(1, 0))).toEqual(["send prepared"]);
    expect(kinds(play.decide(decision(1, 0)))).toEqual(["apply"]);
    expect(play.do({ kind: "applied", generation: 1, step: 0 })).toEqual([
      { kind: "compute", generation: 1, step: 1, scale: 4 },
    ]);
    play.prepare(1, 1);
    play.decide(decision(1, 1));
    expect(play.do({ kind: "applied", generation: 1, step: 1 })).toEqual([
      { kind: "segment-done", generation: 1, start: 0, end: 2, stop: false },
    ]);
  });

  it("evaluates first when told so, and only then computes", () => {
    const play = new Play().join();
    play.assign(assignment({ evaluateFirst: true }));
    play.do({ kind: "segment", generation: 1, start: 0, end: 2 });
    expect(play.do({ kind: "loaded", generation: 1 })).toEqual([
      { kind: "evaluate", generation: 1, step: 0, full: true },
    ]);
    expect(kinds(play.do({ kind: "evaluated", generation: 1, step: 0 }))).toEqual(["compute"]);
  });

  it("writes a checkpoint and evaluates with all images after the last step, then stops", () => {
    const play = new Play().join().begin();
    play.prepare(1, 0);
    play.decide(decision(1, 0, { checkpoint: true, evaluate: true, stop: true }));
    expect(play.do({ kind: "applied", generation: 1, step: 0 })).toEqual([
      { kind: "checkpoint", generation: 1, step: 1 },
      { kind: "evaluate", generation: 1, step: 1, full: true },
    ]);
    expect(play.do({ kind: "evaluated", generation: 1, step: 1 })).toEqual([
      { kind: "segment-done", generation: 1, start: 0, end: 10, stop: true },
    ]);
    const shutdown = { finished: true, reason: "finished" };
    expect(kinds(play.hear({ kind: "shutdown", shutdown }))).toEqual([
      "pictures",
      "send goodbye",
      "end",
    ]);
    expect(play.assign(assignment({ generation: 2 }))).toEqual([]);
  });

  it("takes jobs twice, out of order, or again", () => {
    const play = new Play().join();
    play.assign(assignment());
    play.do({ kind: "loaded", generation: 1 });
    // The job of the steps before is lost, or comes later: it was ordered, or this one would not be there.
    expect(kinds(play.do({ kind: "segment", generation: 1, start: 1, end: 2 }))).toEqual([
      "compute",
    ]);
    expect(play.do({ kind: "segment", generation: 1, start: 1, end: 2 })).toEqual([]);
    play.prepare(1, 0);
    play.decide(decision(1, 0));
    play.do({ kind: "applied", generation: 1, step: 0 });
    expect(play.do({ kind: "segment", generation: 1, start: 0, end: 1 })).toEqual([]);
    play.prepare(1, 1);
    play.decide(decision(1, 1));
    const done = play.do({ kind: "applied", generation: 1, step: 1 });
    expect(kinds(done)).toEqual(["segment-done", "segment-done"]);
    // Again, long after: nothing is executed twice.
    expect(kinds(play.do({ kind: "segment", generation: 1, start: 0, end: 1 }))).toEqual([
      "segment-done",
    ]);
  });

  it("ignores decisions of another generation or step, duplicates, and those that came too early", () => {
    const play = new Play().join().begin();
    expect(play.decide(decision(1, 0))).toEqual([]);
    play.prepare(1, 0);
    expect(play.decide(decision(2, 0))).toEqual([]);
    expect(play.decide(decision(1, 1))).toEqual([]);
    expect(kinds(play.decide(decision(1, 0)))).toEqual(["apply"]);
    expect(play.decide(decision(1, 0))).toEqual([]);
    play.do({ kind: "applied", generation: 1, step: 0 });
    expect(play.decide(decision(1, 0))).toEqual([]);
    expect(play.do({ kind: "applied", generation: 1, step: 0 })).toEqual([]);
    expect(play.decide(decision(7, 0, { kind: abort }))).toEqual([]);
  });

  it("ignores completions of other generations", () => {
    const play = new Play().join().begin();
    const before = play.state;
    expect(play.prepare(2, 0)).toEqual([]);
    expect(play.do({ kind: "loaded", generation: 2 })).toEqual([]);
    expect(play.do({ kind: "segment", generation: 2, start: 0, end: 99 })).toEqual([]);
    expect(play.rest(2)).toEqual([]);
    expect(play.state).toBe(before);
  });
});

describe("ABORT", () => {
  it("is answered once nothing runs, with the shards at the last decided step", () => {
    const play = new Play().join().begin().steps(1, 0, 2);
    expect(kinds(play.decide(decision(1, 2, { kind: abort })))).toEqual(["interrupt"]);
    expect(readableHoldings(play.state)).toEqual([]);
    expect(play.prepare(1, 2)).toEqual([]);
    expect(heldIn(play.rest(1))).toEqual(shards(1, 2));
    expect(readableHoldings(play.state)).toEqual([shards(1, 2)]);
  });

  it("lets an update that has begun finish, without publishing or going on", () => {
    const play = new Play().join().begin();
    play.prepare(1, 0);
    play.decide(decision(1, 0, { checkpoint: true, evaluate: true }));
    play.decide(decision(1, 1, { kind: abort }));
    expect(play.do({ kind: "applied", generation: 1, step: 0 })).toEqual([]);
    expect(heldIn(play.rest(1))).toEqual(shards(1, 1));
  });

  it("before the first decision drops the shards and falls back to those they came from", () => {
    const play = new Play().join().begin().steps(1, 0, 2);
    play.decide(decision(1, 2, { kind: abort }));
    play.rest(1);
    expect(kinds(play.assign(liveAssignment(2, 1, 2)))).toEqual(["load"]);
    expect(readableHoldings(play.state)).toEqual([shards(1, 2)]);
    play.do({ kind: "loaded", generation: 2 });
    play.decide(decision(2, 2, { kind: abort }));
    const rested = play.rest(2);
    expect(rested[0]).toEqual({ kind: "forget", generation: 2 });
    expect(heldIn(rested)).toEqual(shards(1, 2));
  });

  it("of a generation that came from a checkpoint leaves nothing before its first decision", () => {
    const play = new Play().join().begin().steps(1, 0, 2);
    play.decide(decision(1, 2, { kind: abort }));
    play.rest(1);
    const load = play.assign(assignment({ generation: 2, loadCheckpoint: true }));
    expect(kinds(load)).toEqual(["forget", "load"]);
    play.decide(decision(2, 0, { kind: abort }));
    expect(heldIn(play.rest(2))).toBeNull();
  });

  it("after an own failure finds all at rest and is answered at once", () => {
    const play = new Play().join().begin().steps(1, 0, 1);
    const failure = { code: "exchange-timeout", message: "slow" } as const;
    const failed = play.do({ kind: "failed", generation: 1, step: 1, ...failure });
    expect(kinds(failed)).toEqual(["send failed", "interrupt"]);
    expect(play.do({ kind: "failed", generation: 1, step: 1, ...failure })).toEqual([]);
    expect(play.rest(1)).toEqual([]);
    expect(heldIn(play.decide(decision(1, 1, { kind: abort })))).toEqual(shards(1, 1));
  });

  it("after a failed update leaves nothing to hold", () => {
    const play = new Play().join().begin();
    play.prepare(1, 0);
    play.decide(decision(1, 0));
    play.do({ kind: "failed", generation: 1, step: 0, code: "exchange-timeout", message: "?" });
    play.rest(1);
    expect(heldIn(play.decide(decision(1, 1, { kind: abort })))).toBeNull();
  });

  it("drops a first decision's predecessor only when the decision comes", () => {
    const play = new Play().join().begin().steps(1, 0, 1);
    play.decide(decision(1, 1, { kind: abort }));
    play.rest(1);
    play.begin(liveAssignment(2, 1, 1));
    play.prepare(2, 1);
    expect(readableHoldings(play.state)).toEqual([shards(1, 1)]);
    expect(kinds(play.decide(decision(2, 1)))).toEqual(["forget", "apply"]);
    expect(readableHoldings(play.state)).toEqual([]);
  });
});

describe("a broken stream", () => {
  it("interrupts, and connects again once all is at rest, with what is held", () => {
    const play = new Play().join().begin().steps(1, 0, 2);
    play.prepare(1, 2);
    expect(kinds(play.disconnect())).toEqual(["interrupt"]);
    expect(play.decide(decision(1, 2))).toEqual([]);
    expect(play.rest(1)).toEqual([{ kind: "connect", afterMs: 100 }]);
    expect(heldIn(play.do({ kind: "connected" }))).toEqual(shards(1, 2, true));
  });

  it("is made good by a decision about the held step", () => {
    const play = new Play().join().begin().steps(1, 0, 2);
    play.prepare(1, 2);
    play.disconnect();
    play.rest(1);
    play.join();
    expect(play.decide(decision(1, 1))).toEqual([]);
    const late = decision(1, 2, { checkpoint: true });
    expect(play.decide(late)).toEqual([{ kind: "apply", decision: late, publish: false }]);
    expect(readableHoldings(play.state)).toEqual([]);
    const done = play.do({ kind: "applied", generation: 1, step: 2 });
    expect(kinds(done)).toEqual(["send held"]);
    expect(heldIn(done)).toEqual(shards(1, 3));
    expect(play.decide(late)).toEqual([]);
  });

  it("after the first prepared step keeps both, and the coordinator says which counts", () => {
    const lost = (): Play => {
      const play = new Play().join().begin().steps(1, 0, 1);
      play.decide(decision(1, 1, { kind: abort }));
      play.rest(1);
      play.begin(liveAssignment(2, 1, 1));
      play.prepare(2, 1);
      play.disconnect();
      play.rest(2);
      expect(heldIn(play.do({ kind: "connected" }))).toEqual(shards(2, 1, true));
      expect(readableHoldings(play.state)).toEqual([shards(2, 1, true), shards(1, 1)]);
      return play;
    };
    const committed = lost();
    expect(kinds(committed.decide(decision(2, 1)))).toEqual(["forget", "apply"]);
    const done = committed.do({ kind: "applied", generation: 2, step: 1 });
    expect(heldIn(done)).toEqual(shards(2, 2));
    const undecided = lost();
    expect(heldIn(undecided.decide(decision(2, 1, { kind: abort })))).toEqual(shards(1, 1));
  });

  it("while a decision is under way after an own failure loses no commit", () => {
    const play = new Play().join().begin();
    play.prepare(1, 0);
    play.do({ kind: "failed", generation: 1, step: 0, code: "redis-unavailable", message: "?" });
    expect(play.decide(decision(1, 0))).toEqual([]);
    play.decide(decision(1, 1, { kind: abort }));
    expect(kinds(play.rest(1))).toEqual(["apply"]);
    expect(heldIn(play.do({ kind: "applied", generation: 1, step: 0 }))).toEqual(shards(1, 1));
  });

  it("waits longer from attempt to attempt, and gives up in the end", () => {
    const play = new Play();
    const waits: unknown[] = [];
    const event = { kind: "disconnected", code: "worker-lost", reason: "?" } as const;
    for (let i = 0; i < 6; i++) waits.push(...play.do({ ...event, awayMs: i }));
    expect(waits).toEqual(
      [100, 200, 400, 800, 1600, 2000].map((afterMs) => ({ kind: "connect", afterMs })),
    );
    expect(kinds(play.do({ ...event, awayMs: 300_000 }))).toEqual(["die"]);
  });

  it("ends the worker where no other attempt helps; its own name is known there for a while", () => {
    const refused = { kind: "disconnected", reason: "?", awayMs: 0 } as const;
    expect(kinds(new Play().do({ ...refused, code: "version-mismatch" }))).toEqual(["die"]);
    const known = new Play();
    known.do({ kind: "connected" });
    expect(decideWorker(known.state, { ...refused, code: "already-exists" }).effects[0]?.kind).toBe("die");
    known.disconnect();
    known.do({ kind: "connected" });
    expect(kinds(known.do({ ...refused, code: "already-exists" }))).toEqual(["connect"]);
  });

  it("and another run behind the same address: nothing is held for it", () => {
    const play = new Play().join().begin().steps(1, 0, 1);
    play.disconnect();
    play.rest(1);
    play.do({ kind: "connected" });
    const other = play.hear({ kind: "welcome", welcome: { ...welcome, runId: "other" } });
    expect(kinds(other)).toEqual(["forget", "send held", "serve"]);
    expect(heldIn(other)).toBeNull();
    expect(kinds(play.assign(assignment()))).toEqual(["load"]);
  });
});

describe("the end", () => {
  it.each(["internal", "out-of-memory", "data-unavailable"] as const)(
    "%s ends the worker",
    (code) => {
      const play = new Play().join().begin();
      const failed = play.do({ kind: "failed", generation: 1, step: 0, code, message: "?" });
      expect(kinds(failed)).toEqual(["send failed", "die"]);
    },
  );

  it("a failure before any assignment ends it too", () => {
    const failure = { generation: 0, step: 0, code: "data-unavailable", message: "?" } as const;
    expect(kinds(new Play().join().do({ kind: "failed", ...failure }))).toEqual([
      "send failed",
      "die",
    ]);
  });

  it("is asked for by the first signal and taken by the second", () => {
    const play = new Play().join().begin();
    expect(kinds(play.do({ kind: "leave", reason: "SIGTERM" }))).toEqual(["send leave"]);
    expect(kinds(play.prepare(1, 0))).toEqual(["send prepared"]);
    play.disconnect();
    play.rest(1);
    expect(kinds(play.do({ kind: "connected" }))).toEqual(["send hello", "send leave"]);
    expect(kinds(play.do({ kind: "leave", reason: "SIGINT" }))).toEqual(["send goodbye", "end"]);
  });

  it("comes at once with nobody to ask and nothing to keep", () => {
    expect(kinds(new Play().do({ kind: "leave", reason: "SIGTERM" }))).toEqual(["end"]);
  });

  it("a generation that takes over interrupts the one before it", () => {
    const play = new Play().join().begin();
    expect(kinds(play.assign(assignment({ generation: 2 })))).toEqual(["interrupt"]);
    expect(play.assign(assignment({ generation: 1 }))).toEqual([]);
    expect(kinds(play.rest(1))).toEqual(["forget", "load"]);
  });
});
