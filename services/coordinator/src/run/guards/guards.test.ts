import { dataStepOf, type RunSpecInput } from "@paddock/contract";
import type { Prepared } from "@paddock/proto";
import { expect, test } from "vitest";
import { viewOf } from "../../api/view.js";
import { exampleSpec } from "../../testing/example.js";
import { World } from "../../testing/world.js";
import type { RunRecord } from "../durable.js";

/** What a data step does to the step that uses it. */
type Data = (dataStep: number) => "good" | "bad" | "high";

/** A run whose losses depend on data only: `bad` data makes rank 2's loss infinite, `high` data raises all losses. */
function worldOf(data: Data, changes: Partial<RunSpecInput> = {}, workers = 2): World {
  const spec = exampleSpec({
    steps: 40,
    evaluation: { everySteps: 0 },
    fleet: { workers, segmentSteps: 3, leaseSeconds: 30 },
    ...changes,
  });
  const world: World = new World(spec, (prepared): Prepared => {
    const dataStep = dataStepOf(world.state.durable.leftOut, prepared.step);
    const kind = data(dataStep);
    const total = kind === "high" ? 1000 : 1 + (dataStep % 7) / 100;
    const losses = prepared.losses.map((loss) => ({ ...loss, total }));
    const isOwn = losses.some(({ rank }) => rank === 2);
    if (kind !== "bad" || !isOwn) return { ...prepared, losses };
    const offenders = [{ order: 1_000_000, tensor: "loss koleo", rank: 2, samples: [dataStep, 7] }];
    return { ...prepared, losses, finite: false, offenders };
  });
  join(world, workers);
  return world;
}

function join(world: World, workers: number): void {
  for (let i = 0; i < workers; i++) world.join();
}

const badAt =
  (...steps: number[]): Data =>
  (step) =>
    steps.includes(step) ? "bad" : "good";

type Of<K extends RunRecord["kind"]> = Extract<RunRecord, { kind: K }>;

function of<K extends RunRecord["kind"]>({ records }: World, kind: K): Of<K>[] {
  return records.filter((record): record is Of<K> => record.kind === kind);
}

/** What must not depend on workers and crashes. */
function trajectory({ steps }: World): object[] {
  return steps.map(({ step, loss, skipped, dataStep = step }) => ({
    step,
    loss,
    skipped,
    dataStep,
  }));
}

test("a step that is not finite is skipped; tensor, rank, worker and samples are in ledger, steps and status", () => {
  const world = worldOf(badAt(5));
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  const offender = {
    reason: "loss",
    tensor: "loss koleo",
    rank: 2,
    worker: 1,
    workerName: "w2",
    samples: [5, 7],
  };
  expect(of(world, "commit")[5]).toMatchObject({ step: 5, skipped: true, offender });
  expect(world.steps[5]).toMatchObject({ skipped: true, offender });
  expect(world.steps[6]).not.toHaveProperty("offender");
  expect(of(world, "rollback")).toEqual([]);
  expect(world.state.counters).toMatchObject({ skippedLoss: 1, skippedGradient: 0, rollbacks: 0 });
  const said = "step 5 skipped, not finite: loss koleo of logical rank 2 on w2 (samples 5, 7)";
  expect(viewOf(world.state, 0).incidents).toEqual([said]);
  expect(world.folded()).toEqual(world.state.durable);
});

const threeBad = badAt(21, 22, 23);
const guards = { rollbackAfter: 3, skipBefore: 2 };

test("three in a row roll back to the checkpoint before the data that is left out, and the run goes on behind it", () => {
  const world = worldOf(threeBad, { guards });
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  expect(of(world, "rollback")).toMatchObject([
    { step: 23, toStep: 16, skip: { from: 19, to: 24 }, cause: "non-finite" },
  ]);
  expect(of(world, "generation").map(({ step }) => step)).toEqual([0, 16]);
  const data = world.steps.map(({ step, dataStep = step }) => dataStep);
  expect(data).toEqual(Array.from({ length: 40 }, (_, step) => (step < 19 ? step : step + 5)));
  expect(world.steps.some(({ skipped }) => skipped)).toBe(false);
  expect(world.state.durable).toMatchObject({ leftOut: [{ from: 19, to: 24 }] });
  expect(world.state.counters).toMatchObject({ rollbacks: 1, skippedLoss: 3 });
  expect(viewOf(world.state, 0).incidents.at(-1)).toMatch(
    /^back to step 16, without the data of steps 19 to 23: 3 steps in a row were not finite/,
  );
  expect(world.folded()).toEqual(world.state.durable);
});

test("the trajectory is the same for any number of workers", () => {
  const [one, two, four] = [1, 2, 4].map((workers) => {
    const world = worldOf(threeBad, { guards }, workers);
    world.settle();
    expect(world.state.outcome).toEqual({ kind: "finished" });
    return trajectory(world);
  });
  expect(two).toEqual(one);
  expect(four).toEqual(one);
});

const spiky: Data = (step) => (step >= 25 && step < 28 ? "high" : threeBad(step));
const withSpikes = { ...guards, spike: { window: 8, steps: 2, action: "rollback" } } as const;

test.each(["crash", "restart"] as const)(
  "a %s of the coordinator after any record of the ledger changes no step of a run that rolls back twice",
  (what) => {
    const undisturbed = worldOf(spiky, { guards: withSpikes });
    undisturbed.settle();
    expect(of(undisturbed, "rollback").map(({ cause }) => cause)).toEqual(["non-finite", "spike"]);
    const expected = trajectory(undisturbed);
    const { length } = undisturbed.records;
    for (let cut = 2; cut < length; cut++) {
      const world = worldOf(spiky, { guards: withSpikes });
      for (let round = 0; world.records.length < cut && round < 10_000; round++) world.settle(1);
      // What was appended in the same turn is lost too.
      world.records.splice(cut);
      if (what === "crash") {
        world.crash();
        join(world, 2);
      } else world.restart();
      world.settle();
      if (world.state.outcome?.kind !== "finished") {
        world.advance(60_000);
        world.settle();
      }
      expect(world.state.outcome, `cut at ${cut}`).toEqual({ kind: "finished" });
      expect(trajectory(world), `cut at ${cut}`).toEqual(expected);
      expect(of(world, "rollback")).toHaveLength(2);
      expect(world.folded()).toEqual(world.state.durable);
    }
  },
);

test("a checkpoint that becomes durable while the run goes back behind it is void, and its folder is written anew", () => {
  const world = worldOf(badAt(9, 10, 11), { guards });
  world.runTo(5);
  for (let i = 0; i < 200; i++) {
    // Nobody finishes a manifest.
    for (const { id } of [...world.workers]) world.read(id);
    for (const { id } of [...world.workers]) world.deliver(id);
  }
  expect(of(world, "rollback")).toMatchObject([{ toStep: 4 }]);
  expect(world.manifests.map(({ step }) => step)).toEqual([8]);
  expect(world.state.active).toBeNull();
  world.finishManifest(0);
  expect(of(world, "checkpoint").map(({ step }) => step)).toEqual([4]);
  expect(world.state.active?.startStep).toBe(4);
  world.settle();
  expect(of(world, "checkpoint").map(({ step }) => step)).toEqual([
    4, 8, 12, 16, 20, 24, 28, 32, 36, 40,
  ]);
  expect(world.manifests).toEqual([]);
});

test("a manifest says up to which data the run is, and what it leaves out", () => {
  const world = worldOf(badAt(9, 10, 11), { guards });
  const manifests = new Map<number, unknown>();
  for (let round = 0; world.state.outcome === null && round < 10_000; round++) {
    for (const { id } of [...world.workers]) world.read(id);
    for (const { id } of [...world.workers]) world.deliver(id);
    for (const manifest of world.manifests) manifests.set(manifest.step, manifest);
    world.finishManifest(0);
  }
  const images = 8;
  expect(manifests.get(4)).toMatchObject({ cursor: 4 * images });
  expect(manifests.get(4)).not.toHaveProperty("leftOut");
  expect(manifests.get(12)).toMatchObject({ cursor: 17 * images, leftOut: [{ from: 7, to: 12 }] });
});

test("a run that has gone back often enough fails, with the last offender in its reason", () => {
  const world = worldOf((step) => (step >= 9 ? "bad" : "good"), {
    guards: { ...guards, maxRollbacks: 2 },
  });
  world.settle();
  expect(of(world, "rollback")).toHaveLength(2);
  expect(of(world, "guard")).toMatchObject([{ cause: "non-finite", action: "stop" }]);
  expect(world.state.outcome).toMatchObject({
    kind: "failed",
    code: "non-finite",
    reason: expect.stringMatching(
      /logical rank 2 on w2 \(samples \d+, 7\); it has gone back 2 times already/,
    ),
  });
});

test("a rollback whose checkpoint has been deleted ends the run instead of starting it from the beginning", () => {
  const world = worldOf(badAt(21, 22, 23), { guards, checkpoint: { everySteps: 4, keep: 1 } });
  world.runTo(22);
  const { durable } = world.state;
  world.state = { ...world.state, durable: { ...durable, kept: [20] } };
  world.settle();
  expect(world.state.outcome).toMatchObject({
    kind: "failed",
    reason: expect.stringMatching(/the checkpoints before step 19 are gone/),
  });
});

test("before the first checkpoint it goes back to where the run began", () => {
  const world = worldOf(badAt(1, 2, 3), { guards, checkpoint: { everySteps: 30 } });
  world.settle();
  expect(of(world, "rollback")).toMatchObject([{ toStep: 0, skip: { from: 0, to: 4 } }]);
  expect(world.state.outcome).toEqual({ kind: "finished" });
  expect(world.steps[0]).toMatchObject({ step: 0, dataStep: 4 });
});

test("with stop, the first step that is not finite ends the run; it is in the ledger", () => {
  const world = worldOf(badAt(5), { guards: { nonFinite: "stop" } });
  world.settle();
  expect(world.state.outcome).toMatchObject({ kind: "failed", code: "non-finite" });
  expect(of(world, "guard")).toMatchObject([{ step: 5, action: "stop", cause: "non-finite" }]);
  expect(world.steps.at(-1)?.step).toBe(5);
});

test.each(["warn", "stop", "rollback"] as const)("a spike: %s", (action) => {
  const spike = { window: 8, steps: 2, action };
  const world = worldOf((step) => (step >= 20 && step < 24 ? "high" : "good"), {
    guards: { skipBefore: 2, spike },
  });
  const ends = () => world.records.some(({ kind }) => kind === "guard" || kind === "rollback");
  while (!ends()) world.settle(1);
  const said = /^the loss spiked: 1000\.0 in step 21, above 1\.\d+ since step 20/;
  expect(world.state.counters.spikes).toBe(1);
  if (action === "warn") expect(viewOf(world.state, 0).alert).toMatch(said);
  world.settle();
  const { outcome } = world.state;
  if (action === "stop") {
    expect(outcome).toMatchObject({ kind: "failed", code: "loss-spike" });
    expect(of(world, "guard")).toMatchObject([{ step: 21, action: "stop", cause: "spike" }]);
    return;
  }
  expect(outcome).toEqual({ kind: "finished" });
  expect(viewOf(world.state, 0).alert).toBe("");
  if (action === "warn") {
    expect(of(world, "guard")).toMatchObject([
      { step: 21, action: "warn", cause: "spike", message: expect.stringMatching(said) },
    ]);
  } else {
    // The rest of the high data spikes once more.
    expect(of(world, "rollback").map(({ skip }) => skip)).toEqual([
      { from: 18, to: 22 },
      { from: 16, to: 20 },
    ]);
    expect(of(world, "rollback")[0]).toMatchObject({
      step: 21,
      toStep: 16,
      skip: { from: 18, to: 22 },
      cause: "spike",
      offender: null,
    });
    expect(world.folded()).toEqual(world.state.durable);
  }
});
