import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { World } from "../testing/world.js";

function startedWorld(workers = 2): World {
  const fleet = { workers, segmentSteps: 3, leaseSeconds: 30 };
  const world = new World(exampleSpec({ fleet }));
  for (let i = 0; i < workers; i++) world.join();
  return world;
}

test("a worker that hangs loses its lease; one that waits for it, or prepared, does not", () => {
  const world = startedWorld(3);
  world.runTo(1);
  for (const { id } of world.workers) world.read(id);
  world.deliver(1); // prepared: waits for the decision
  const progress = { generation: 1, step: 1, phase: "gather", waitingOn: [2] };
  world.nowMs += 2_000;
  world.post({ kind: "progress", id: 2, progress }); // waits for the third from here on
  world.advance(28_500);
  expect(world.state.workers.map(({ id }) => id)).toEqual([1, 2]);
});

test("a coordinator that stood still blames nobody for it", () => {
  const world = startedWorld();
  world.runTo(1);
  world.nowMs += 100_000;
  world.post({ kind: "stood-still", ms: 100_000 });
  world.post({ kind: "tick" });
  expect(world.state.workers).toHaveLength(2);
  world.advance(31_000);
  expect(world.state.workers.length).toBeLessThan(2);
});

test("who waits for another is not expelled before it; if they wait for each other, the first one goes", () => {
  const world = startedWorld(3);
  world.runTo(1);
  for (const { id } of world.workers) world.read(id);
  for (const [worker, waitingOn] of [[1], [2], [0]].entries()) {
    world.nowMs += 1;
    const progress = { generation: 1, step: 1, phase: "gather", waitingOn };
    world.post({ kind: "progress", id: worker + 1, progress });
  }
  world.advance(40_000);
  expect(world.state.workers.map(({ id }) => id)).toEqual([2, 3]);
});

test("nobody is expelled while the one they wait for still moves", () => {
  const world = startedWorld();
  world.runTo(1);
  for (const { id } of world.workers) world.read(id);
  const waits = { generation: 1, step: 1, phase: "gather", waitingOn: [1] };
  world.post({ kind: "progress", id: 1, progress: waits });
  for (let i = 0; i < 10; i++) {
    world.advance(10_000);
    world.post({
      kind: "progress",
      id: 2,
      progress: { generation: 1, step: 1, phase: `backward ${i}`, waitingOn: [] },
    });
  }
  expect(world.state.workers.length).toBe(2);
});
