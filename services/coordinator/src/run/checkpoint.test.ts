/** Checkpoints that fail cost themselves and nothing else, up to a limit. */
import { type ErrorCode, keptSteps } from "@paddock/contract";
import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { World } from "../testing/world.js";

/** Of a file whose head has no hash of its own. */
const noHead = { headBytes: 0, headSha256: "" };

function startedWorld(checkpoint: object = {}, steps?: number): World {
  const world = new World(
    exampleSpec({
      ...(steps === undefined ? {} : { steps }),
      checkpoint: { everySteps: 4, keep: 2, ...checkpoint },
      evaluation: { everySteps: 0 },
      fleet: { workers: 2, segmentSteps: 3, leaseSeconds: 30 },
    }),
  );
  for (let i = 0; i < 2; i++) world.join();
  return world;
}

function exchange(world: World, id: number): void {
  world.read(id);
  world.deliver(id);
}

/** Lets those whose generation is over say what they hold. */
function rest(world: World): void {
  for (const { id } of world.state.workers) {
    while (world.state.workers.some((worker) => worker.id === id && worker.owesHeld !== null)) {
      exchange(world, id);
    }
  }
}

const disk = { code: "disk-unavailable", message: "no space" };

/** The second worker's file of `step` cannot be written: before its message of the file is read. */
function fail(world: World, step: number, of: { code: string; message: string } = disk) {
  const { generation } = world.state.durable;
  return world.post({ kind: "checkpoint-failed", id: 2, failure: { generation, step, ...of } });
}

test("a failed checkpoint is dropped, logged and its folder deleted; the next one counts as ever", () => {
  const world = startedWorld();
  world.runTo(4);
  expect(world.state.active?.pendingCheckpoints).toMatchObject([{ step: 4 }]);
  const effects = fail(world, 4);
  expect(effects).toContainEqual({ kind: "keep-checkpoints", steps: [] });
  expect(effects).toContainEqual(
    expect.objectContaining({ kind: "log", level: "error", event: "checkpoint failed" }),
  );
  expect(world.state.active?.pendingCheckpoints).toEqual([]);
  expect(world.state.counters.checkpointFailures).toBe(1);
  // What comes of it later concerns nobody any more.
  fail(world, 4);
  expect(world.state.counters.checkpointFailures).toBe(1);
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  expect(world.records.filter(({ kind }) => kind === "checkpoint")).not.toContainEqual(
    expect.objectContaining({ step: 4 }),
  );
  expect(world.state.checkpointFailures).toBe(0);
});

test("other members that are due are not kept waiting by a checkpoint that failed", () => {
  const world = startedWorld();
  world.runTo(3);
  world.post({ kind: "scale", workers: 1 });
  world.runTo(4);
  expect(world.state.active).toMatchObject({ generation: 1, regroupAt: 4 });
  fail(world, 4);
  expect(world.state.active).toBeNull();
  rest(world);
  expect(world.state.active).toMatchObject({ generation: 2, startStep: 4 });
});

test("three in a row end the run; one that succeeds in between starts the count again", () => {
  const world = startedWorld({ everySteps: 1 }, 20);
  const failAt = (step: number): void => {
    world.runTo(step);
    fail(world, step);
  };
  failAt(1);
  failAt(2);
  world.runTo(3);
  while (world.manifests.length === 0) for (const { id } of world.workers) exchange(world, id);
  world.finishManifest(0);
  expect(world.state.checkpointFailures).toBe(0);
  const next = world.state.durable.next;
  failAt(next + 1);
  failAt(next + 2);
  expect(world.state.outcome).toBeNull();
  failAt(next + 3);
  expect(world.state.outcome).toMatchObject({
    kind: "failed",
    code: "disk-unavailable",
    reason: expect.stringContaining("3 checkpoints in a row"),
  });
});

test("the last checkpoint must be written: a run that ends without it has failed", () => {
  const world = startedWorld();
  world.runTo(world.spec.steps);
  expect(world.state.active?.stopping).toBe(true);
  fail(world, world.spec.steps);
  expect(world.state.outcome).toMatchObject({
    kind: "failed",
    code: "disk-unavailable",
    reason: expect.stringContaining("the last checkpoint"),
  });
});

test("a failure of another generation, or of a file that is there, is not believed", () => {
  const world = startedWorld();
  world.runTo(4);
  const pending = world.state.active?.pendingCheckpoints;
  const failure = { generation: 7, step: 4, ...disk };
  world.post({ kind: "checkpoint-failed", id: 2, failure });
  world.post({ kind: "checkpoint-failed", id: 99, failure: { ...failure, generation: 1 } });
  expect(world.state.active?.pendingCheckpoints).toEqual(pending);
  expect(world.state.counters).toMatchObject({ staleMessages: 2, checkpointFailures: 0 });
});

/** A world whose manifest of step 4 cannot be written; perhaps after its generation was lost. */
function afterManifestFailed(code: ErrorCode, isLost: boolean): World {
  const world = startedWorld();
  world.runTo(4);
  while (world.manifests.length === 0) for (const { id } of world.workers) exchange(world, id);
  if (isLost) {
    world.kill(1);
    world.join();
    rest(world);
  }
  world.post({ kind: "manifest-failed", generation: 1, step: 4, code, reason: "why" });
  return world;
}

test("a manifest that the disk refuses only costs the checkpoint; files that are not there end the run", () => {
  expect(afterManifestFailed("disk-unavailable", false).state).toMatchObject({
    outcome: null,
    checkpointFailures: 1,
  });
  expect(afterManifestFailed("checkpoint-corrupt", false).state.outcome).toMatchObject({
    kind: "failed",
    code: "checkpoint-corrupt",
  });
  for (const code of ["disk-unavailable", "checkpoint-corrupt"] satisfies ErrorCode[]) {
    const { active } = afterManifestFailed(code, true).state;
    expect(active).toMatchObject({ generation: 2, startStep: 0 });
  }
});

test("a file of a dead generation does not count for the checkpoint of a later one", () => {
  const world = startedWorld();
  world.runTo(4);
  world.kill(2);
  world.join();
  rest(world);
  expect(world.state.active).toMatchObject({ generation: 2, startStep: 0 });
  const file = { file: "g1-w0", bytes: 1, sha256: "", worker: 0, ...noHead };
  const before = world.state.active;
  world.post({ kind: "checkpoint-written", id: 1, written: { generation: 1, step: 4, ...file } });
  expect(world.state.active).toBe(before);
});

test("the newest checkpoints stay, and those of every so many steps", () => {
  const steps = [10, 20, 30, 40, 50, 60].map((step) => ({ step }));
  expect(keptSteps(steps, { keep: 2, keepEvery: 0 })).toEqual([50, 60]);
  expect(keptSteps(steps, { keep: 1, keepEvery: 30 })).toEqual([30, 60]);
  expect(keptSteps(steps, { keep: 9, keepEvery: 20 })).toHaveLength(6);
  const world = startedWorld({ keep: 1, keepEvery: 8 });
  world.settle();
  const saved = world.records.flatMap((r) => (r.kind === "checkpoint" ? [r.step] : []));
  const last = saved.at(-1) as number;
  expect([...world.folders].sort((a, b) => a - b)).toEqual(
    saved.filter((step) => step === last || step % 8 === 0),
  );
});
