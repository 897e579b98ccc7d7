/** The state stays alive in the workers' memory: what is committed is not computed again. */
import type { RunSpecInput } from "@paddock/contract";
import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { World } from "../testing/world.js";

const shadow = { workers: 3, segmentSteps: 3, redundancy: "shadow" } as const;

function startedWorld(fleet: RunSpecInput["fleet"]): World {
  const world = new World(
    exampleSpec({ checkpoint: { everySteps: 100 }, evaluation: { everySteps: 0 }, fleet }),
  );
  for (let i = 0; i < world.spec.fleet.workers; i++) world.join();
  return world;
}

function generations(world: World): { workers: number; step: number }[] {
  return world.records.flatMap((r) =>
    r.kind === "generation" ? [{ workers: r.workers, step: r.step }] : [],
  );
}

/** The run ends, and no step was decided twice. */
function expectNothingLost(world: World): void {
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  expect(world.records.filter(({ kind }) => kind === "commit")).toHaveLength(world.spec.steps);
}

test("with shadows the survivors of one loss go on at once, from the last commit", () => {
  const world = startedWorld(shadow);
  world.runTo(5);
  world.kill(2);
  world.settle(3);
  expect(generations(world)).toEqual([
    { workers: 3, step: 0 },
    { workers: 2, step: 5 },
  ]);
  world.join();
  expectNothingLost(world);
  expect(generations(world).at(-1)?.workers).toBe(3);
});

test("two neighbours that are lost at once take a shard and its copy with them: back to the checkpoint", () => {
  const world = startedWorld(shadow);
  world.runTo(5);
  world.kill(1);
  world.kill(2);
  world.settle(3);
  world.advance(30_000);
  expect(generations(world).at(-1)).toEqual({ workers: 1, step: 0 });
});

test("a connection that breaks costs nothing: the worker comes back with its shards", () => {
  const world = startedWorld({ workers: 2, segmentSteps: 3 });
  world.runTo(5);
  world.cut(2);
  expectNothingLost(world);
  expect(generations(world).at(-1)).toEqual({ workers: 2, step: 5 });
});

test("a coordinator that dies between ledger and announcement tells the decision again", () => {
  const world = startedWorld({ workers: 2, segmentSteps: 3 });
  world.runTo(5); // nobody has read the decision about step 4 yet
  expect(world.workers.every(({ step }) => step === 4)).toBe(true);
  world.restart();
  world.settle(1);
  expect(world.state.counters.steps).toBe(0);
  expectNothingLost(world);
  expect(generations(world).at(-1)).toEqual({ workers: 2, step: 5 });
});

test("a commit of which only one worker has heard, in the first step of a live generation, is not lost either", () => {
  const world = startedWorld({ workers: 2, segmentSteps: 3 });
  world.join();
  world.runTo(5);
  world.post({ kind: "scale", workers: 3 });
  world.runTo(7); // step 5 is the old generation's last, step 6 the new one's first
  expect(world.workers.map(({ decided }) => decided)).toEqual([0, 0, 1]);
  world.restart();
  world.join();
  expectNothingLost(world);
});

test.each([
  ["step", { generation: 1, step: 4, runId: "r" }],
  ["generation", { generation: 7, step: 5, runId: "r" }],
  ["run", { generation: 1, step: 5, runId: "another" }],
])("what is held of another %s is worth nothing", (_what, other) => {
  const world = startedWorld({ workers: 2, segmentSteps: 3 });
  world.runTo(5);
  world.kill(1);
  world.kill(2);
  const held = { worker: 0, workers: 1, prepared: false, shadow: -1 };
  world.join([{ ...held, ...other }]);
  world.join();
  expect(generations(world).at(-1)).toEqual({ workers: 2, step: 0 });
});

test("what a worker says it holds counts when it was asked, and for the generation that ended", () => {
  const world = startedWorld(shadow);
  world.runTo(5);
  const held = {
    generation: 1,
    worker: 0,
    workers: 1,
    step: 5,
    prepared: false,
    shadow: -1,
    runId: "r",
  };
  world.post({ kind: "held", id: 1, held: { generation: 1, holdings: [held] } });
  world.kill(2);
  world.post({ kind: "held", id: 1, held: { generation: 7, holdings: [held] } });
  expect(world.state.counters.staleMessages).toBe(2);
  expect(world.state.workers.every(({ holdings }) => holdings.length === 0)).toBe(true);
  expectNothingLost(world);
});

test("a worker that leaves is let go when the others have its shards, and has done nothing in vain", () => {
  const world = startedWorld(shadow);
  world.runTo(3);
  world.post({ kind: "leaving", id: 1, reason: "SIGTERM" });
  expect(world.state.workers).toHaveLength(3);
  world.runTo(5);
  expect(world.state.workers.map(({ id }) => id)).toEqual([2, 3]);
  expectNothingLost(world);
  expect(generations(world)).toEqual([
    { workers: 3, step: 0 },
    { workers: 2, step: 4 },
  ]);
});

test("a worker that leaves stays when its successor is lost before the first step, until another one has its shards", () => {
  const world = startedWorld({ workers: 2, segmentSteps: 3, redundancy: "shadow" });
  world.runTo(5);
  world.post({ kind: "leaving", id: 1, reason: "SIGTERM" });
  while (generations(world).length < 2) world.settle(1);
  expect(generations(world).at(-1)?.workers).toBe(1);
  world.kill(2);
  world.settle(5);
  world.advance(1_000); // a generation that is lost before its first step is not replaced at once
  expect(world.state.workers.map(({ id }) => id)).toEqual([1]);
  expect(generations(world)).toHaveLength(2);
  world.join();
  expectNothingLost(world);
});

test("the last worker leaves only after a checkpoint; whoever comes later goes on from there", () => {
  const world = startedWorld({ workers: 1, segmentSteps: 3 });
  world.runTo(3);
  world.post({ kind: "leaving", id: 1, reason: "SIGTERM" });
  world.settle();
  expect(world.state.workers).toEqual([]);
  expect(world.state.durable.checkpoints.map(({ step }) => step)).toEqual([4]);
  world.join();
  expectNothingLost(world);
});

test("a drain while the members change saves what they hold, without another step", () => {
  const world = startedWorld(shadow);
  world.runTo(5);
  world.kill(2);
  world.post({ kind: "drain", reason: "SIGINT" });
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "interrupted", reason: "SIGINT" });
  expect(world.state.durable.checkpoints.at(-1)?.step).toBe(5);
});

test("a worker that is lost after the last step, before its file is written, costs the file and not the steps", () => {
  const world = startedWorld(shadow);
  world.runTo(10);
  world.kill(3);
  expectNothingLost(world);
  expect(world.state.durable.checkpoints.at(-1)?.step).toBe(10);
});

test("a worker that does not come to rest within its lease is expelled", () => {
  const world = startedWorld(shadow);
  world.runTo(5);
  world.kill(3);
  for (let i = 0; i < 5; i++) {
    world.read(1); // the other one is frozen
    world.deliver(1);
  }
  world.advance(29_000);
  expect(world.state.active).toBeNull();
  world.advance(2_000);
  expect(world.state.workers.map(({ id }) => id)).toEqual([1]);
});
