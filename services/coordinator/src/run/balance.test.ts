import { rngOf } from "@paddock/contract";
import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { World } from "../testing/world.js";
import { cutsFor } from "./balance.js";
import type { WorkerId } from "./state.js";

type Pace = (step: number, id: WorkerId) => number;

/** 8 logical ranks; worker `id` computes one of them in `pace(step, id)` seconds. */
function worldOf(
  pace: Pace,
  { workers = 2, balance = "measured", steps = 200 }: Partial<Options> = {},
): World {
  const spec = exampleSpec({
    steps,
    logicalRanks: 8,
    fleet: { workers, segmentSteps: 50, balance },
    checkpoint: { everySteps: 50 },
    evaluation: { everySteps: 0 },
  });
  const world = new World(spec, (prepared, id) => ({
    ...prepared,
    // What others cost a worker is not its own speed.
    seconds: { backward: pace(prepared.step, id) * prepared.losses.length, wait: 5, gather: 3 },
  }));
  for (let i = 0; i < workers; i++) world.join();
  return world;
}

interface Options {
  readonly workers: number;
  readonly balance: "measured" | "even";
  readonly steps: number;
}

function generationsOf(world: World) {
  return world.records.flatMap((record) => (record.kind === "generation" ? [record] : []));
}

function cutsOf(world: World) {
  return generationsOf(world).map(({ cuts, step }) => ({ cuts, step }));
}

const slowSecond: Pace = (_, id) => (id === 2 ? 0.3 : 0.1);

test("a worker that is three times as slow gets a third of the ranks, once it has been measured; no step is lost", () => {
  const world = worldOf(slowSecond);
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  // 20 steps are committed, and then the generation is replaced at once.
  expect(cutsOf(world)).toEqual([
    { cuts: [0, 4, 8], step: 0 },
    { cuts: [0, 6, 8], step: 21 },
  ]);
  expect(generationsOf(world)[1]?.reason).toBe(
    "6, 2 logical ranks instead of 4, 4: workers differ in speed",
  );
  expect(world.records.filter(({ kind }) => kind === "commit")).toHaveLength(200);
  const even = worldOf(slowSecond, { balance: "even" });
  even.settle();
  expect(cutsOf(even)).toEqual([{ cuts: [0, 4, 8], step: 0 }]);
  const numbers = (w: World) => w.steps.map(({ loss, gradNorm }) => ({ loss, gradNorm }));
  expect(numbers(world)).toEqual(numbers(even));
});

test("every member is told the same cuts", () => {
  const world = worldOf((_, id) => 0.05 * id, { workers: 3 });
  const told: (readonly number[])[] = [];
  for (let i = 0; i < 200 && told.length < 3; i++) {
    world.settle(1);
    told.length = 0;
    for (const { assignment } of world.workers) {
      if (assignment?.generation === 2) told.push(assignment.rankCuts);
    }
  }
  expect(told).toEqual([
    [0, 5, 7, 8],
    [0, 5, 7, 8],
    [0, 5, 7, 8],
  ]);
});

test("workers of one speed keep their ranks, however their steps jitter", () => {
  const jitter: Pace = (step, id) => 0.1 * (0.6 + 0.8 * rngOf(7, step, id).uniform());
  // A step in five takes four times as long.
  const spikes: Pace = (step, id) => (rngOf(8, step, id).uniform() < 0.2 ? 0.4 : 0.1);
  for (const pace of [jitter, spikes]) {
    const world = worldOf(pace);
    world.settle();
    expect(generationsOf(world)).toHaveLength(1);
  }
});

test("what would save less than 50 ms a step is not worth another generation, nor is it near the end", () => {
  const fast = worldOf((_, id) => 0.01 * id);
  fast.settle();
  expect(generationsOf(fast)).toHaveLength(1);
  const short = worldOf(slowSecond, { steps: 40 });
  short.settle();
  expect(generationsOf(short)).toHaveLength(1);
});

test("a worker that is disturbed for a while keeps its ranks; one that recovers gets them back, but not at once", () => {
  const disturbed = worldOf((step, id) => (id === 2 && step >= 40 && step < 47 ? 1 : 0.1));
  disturbed.settle();
  expect(generationsOf(disturbed)).toHaveLength(1);
  const recovered = worldOf((step, id) => (id === 2 && step < 22 ? 0.3 : 0.1));
  recovered.settle();
  const [, second, third, ...others] = cutsOf(recovered);
  expect(second).toEqual({ cuts: [0, 6, 8], step: 21 });
  expect(third?.cuts).toEqual([0, 4, 8]);
  expect(third?.step).toBeGreaterThanOrEqual(41);
  expect(others).toEqual([]);
});

test("a newcomer is taken for one like the others until it has been measured", () => {
  const world = worldOf((_, id) => ({ 1: 0.1, 2: 0.1, 3: 0.5 })[id] ?? 0.1);
  world.runTo(30);
  world.join();
  world.post({ kind: "scale", workers: 3 });
  world.settle();
  const cuts = cutsOf(world);
  expect(cuts.map((generation) => generation.cuts)).toEqual([
    [0, 4, 8],
    [0, 2, 5, 8],
    [0, 4, 7, 8], // 0.4, 0.3 and 0.5 s, after 0.3, 0.3 and 1.5 s
  ]);
  expect((cuts[2]?.step ?? 0) - (cuts[1]?.step ?? 0)).toBe(21);
  expect(world.state.outcome).toEqual({ kind: "finished" });
});

test("what was measured goes with the worker: another one in its place begins with an even share", () => {
  const world = worldOf((_, id) => (id === 2 ? 0.3 : 0.1));
  world.runTo(30);
  expect(world.state.active?.cuts).toEqual([0, 6, 8]);
  world.kill(2);
  for (let i = 0; i < 10; i++) {
    world.read(1);
    world.deliver(1);
  }
  world.join();
  expect(world.state.active).toMatchObject({ members: [1, 3], cuts: [0, 4, 8] });
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
});

test("a worker lost while ranks are dealt anew costs what it costs at any other time", () => {
  const world = worldOf(slowSecond);
  for (let i = 0; i < 1000 && world.state.workers[0]?.owesHeld !== 1; i++) {
    for (const { id } of [...world.workers]) world.read(id);
    for (const { id } of [...world.workers]) {
      if (world.state.active) world.deliver(id);
    }
  }
  expect(world.state.active).toBeNull();
  world.kill(2);
  world.join();
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  expect(world.steps.map(({ step }) => step)).toEqual([...Array(200).keys()]);
});

test("cuts are chosen from what is known, and are even where nothing is", () => {
  const { state } = worldOf(slowSecond);
  const measured = (pace: number) => ({ paces: Array.from({ length: 5 }, () => pace) });
  const unknown = { paces: [9, 9, 9, 9] };
  expect(cutsFor(state, [unknown, unknown])).toEqual([0, 4, 8]);
  expect(cutsFor(state, [measured(0.1), unknown, measured(0.4)])).toEqual([0, 5, 7, 8]);
  expect(cutsFor(state, [measured(0.1), measured(0.112)])).toEqual([0, 4, 8]);
  expect(cutsFor(state, [measured(0.1), measured(10)])).toEqual([0, 7, 8]);
});
