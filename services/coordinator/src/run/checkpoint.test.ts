/** What a checkpoint needs to count, what its loss costs, and which ones stay. */
import { keptSteps } from "@paddock/contract";
import { expect, test } from "vitest";
import { checkpointsOf, exchange, rest, startedWorld } from "../testing/started-world.js";
import type { World } from "../testing/world.js";

test("a generation that is lost while a manifest is being written starts from that checkpoint", () => {
  const world = startedWorld();
  world.runTo(4);
  while (world.manifests.length === 0) {
    for (const { id } of world.workers) exchange(world, id);
  }
  world.kill(1);
  world.join();
  rest(world);
  expect(world.state.active).toBeNull();
  world.finishManifest(0);
  expect(world.state.active).toMatchObject({ generation: 2, startStep: 4 });
});

test("a file of a dead generation does not count for the checkpoint of a later one", () => {
  const world = startedWorld();
  world.runTo(4);
  world.kill(2);
  world.join();
  rest(world);
  expect(world.state.active).toMatchObject({ generation: 2, startStep: 0 });
  const written = {
    generation: 1,
    step: 4,
    file: "g1-w0",
    bytes: 1,
    sha256: "",
    worker: 0,
    headBytes: 0,
    headSha256: "",
    ghash: "",
  };
  world.runTo(4);
  const before = world.state.active;
  expect(before).toMatchObject({ generation: 2, pendingCheckpoints: [{ step: 4 }] });
  world.post({ kind: "checkpoint-written", id: 1, written });
  expect(world.state.active).toBe(before);
});

test("a checkpoint that fails costs itself and not the run; three in a row, or the last one, end it", () => {
  const failing = (world: World) => {
    while (world.manifests.length === 0) {
      for (const { id } of world.workers) exchange(world, id);
    }
    const [{ generation = 0, step = 0 } = {}] = world.manifests.splice(0);
    const failure = { code: "disk-unavailable", reason: "ENOSPC" } as const;
    world.post({ kind: "manifest-failed", generation, step, ...failure });
  };
  const world = startedWorld({ checkpoint: { everySteps: 2 } });
  failing(world);
  world.runTo(3);
  expect(world.state.outcome).toBeNull();
  expect(world.state.counters.failedCheckpoints).toBe(1);
  failing(world);
  failing(world);
  expect(world.state.outcome).toMatchObject({ kind: "failed", code: "disk-unavailable" });

  const mended = startedWorld({ checkpoint: { everySteps: 2 } });
  failing(mended);
  mended.settle();
  expect(mended.state.outcome).toEqual({ kind: "finished" });
  expect(mended.state.durable.checkpoints.map(({ step }) => step)).toEqual([4, 6, 8, 10]);

  const last = startedWorld({ checkpoint: { everySteps: 100 } });
  failing(last);
  expect(last.state.outcome).toMatchObject({ kind: "failed", code: "disk-unavailable" });
});

test("a worker's file that could not be written is the same; one of a lost generation only costs the checkpoint", () => {
  const world = startedWorld();
  world.runTo(4);
  const failed = { generation: 1, step: 4, code: "disk-unavailable", message: "ENOSPC" };
  world.post({ kind: "checkpoint-failed", id: 1, failed });
  expect(world.state.active?.pendingCheckpoints).toEqual([]);
  world.post({ kind: "checkpoint-failed", id: 2, failed });
  expect(world.state.counters).toMatchObject({ failedCheckpoints: 1, staleMessages: 1 });
  world.settle();
  expect(checkpointsOf(world)).toEqual([8, 10]);

  const lost = startedWorld();
  lost.runTo(4);
  while (lost.manifests.length === 0) for (const { id } of lost.workers) exchange(lost, id);
  lost.kill(1);
  lost.join();
  rest(lost);
  const where = { generation: 1, step: 4, code: "disk-unavailable", reason: "ENOSPC" } as const;
  lost.post({ kind: "manifest-failed", ...where });
  expect(lost.state.active).toMatchObject({ generation: 2, startStep: 0 });
});

test("the newest checkpoints stay, and those of every so many steps", () => {
  const steps = [10, 20, 30, 40, 50, 60].map((step) => ({ step }));
  expect(keptSteps(steps, { keep: 2, keepEvery: 0 })).toEqual([50, 60]);
  expect(keptSteps(steps, { keep: 1, keepEvery: 30 })).toEqual([30, 60]);
  expect(keptSteps(steps, { keep: 9, keepEvery: 20 })).toHaveLength(6);
  const world = startedWorld({ checkpoint: { everySteps: 2, keep: 1, keepEvery: 4 } });
  world.settle();
  expect(checkpointsOf(world)).toEqual([2, 4, 6, 8, 10]);
  expect([...world.folders].sort((a, b) => a - b)).toEqual([4, 8, 10]);
});
