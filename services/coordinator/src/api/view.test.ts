import { RunPhase } from "@paddock/proto";
import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { World } from "../testing/world.js";
import { viewOf } from "./view.js";

function view(world: World) {
  return viewOf(world.state, world.nowMs);
}

test("a run that waits says for whom, how long and why", () => {
  const world = new World(exampleSpec());
  world.join();
  world.nowMs += 12_300;
  expect(view(world)).toMatchObject({
    phase: RunPhase.RUN_PHASE_WAITING,
    waitingFor: "1 more of 2 workers, for 12.3 s (start)",
    step: 0,
    steps: 10,
    lastStepJson: "",
    etaSeconds: -1,
    knnAccuracy: -1,
    checkpointStep: -1,
    workers: [{ workerName: "w1", worker: -1 }],
  });
});

test("a running run names the worker it waits for and the end of its lease", () => {
  const world = new World(exampleSpec());
  world.join();
  world.join();
  world.settle(1);
  for (const { id } of world.workers) world.read(id);
  world.post({
    kind: "progress",
    id: 2,
    progress: { generation: 1, step: 0, phase: "gather", waitingOn: [] },
  });
  world.nowMs += 5_000;
  expect(view(world).waitingFor).toContain(
    "worker w2 (step 0, gather), last progress 5.0 s ago, lease ends in 25.0 s",
  );
});

test("after a loss it says how long it waits for a replacement", () => {
  const world = new World(exampleSpec());
  world.join();
  world.join();
  while (world.state.durable.next < 2) world.settle(1);
  world.kill(2);
  world.nowMs += 10_000;
  expect(view(world).waitingFor).toBe(
    "1 more of 2 workers, for 10.0 s (worker w2 is gone: killed); goes on with fewer in 20.0 s",
  );
});

test("rate and remaining time come from the last commits, and an ended run waits for nothing", () => {
  const world = new World(exampleSpec());
  world.join();
  world.join();
  while (world.state.durable.next < 6) {
    world.nowMs += 499;
    world.settle(1);
  }
  const { imagesPerSecond, etaSeconds, lastStepJson } = view(world);
  expect(imagesPerSecond).toBeGreaterThan(0);
  expect(etaSeconds).toBeCloseTo((4 * 8) / imagesPerSecond, 6);
  expect(JSON.parse(lastStepJson)).toMatchObject({ step: 5, workers: 2, images: 8 });
  world.settle();
  expect(view(world)).toMatchObject({
    phase: RunPhase.RUN_PHASE_FINISHED,
    waitingFor: "",
    knnAccuracy: 0.01,
    checkpointStep: 10,
  });
});
