import type { Prepared } from "@paddock/proto";
import { expect, test } from "vitest";
import { viewOf } from "../api/view.js";
import { examplePrepared, exampleSpec } from "../testing/example.js";
import { World } from "../testing/world.js";
import { meanMonitor } from "./mean-monitor.js";

const prototypes = 40;
const uniform = Math.log(prototypes);

/** Every worker says that the teacher's outputs are uniform from step `from` on. */
const collapsedFrom =
  (from: number) =>
  (prepared: Prepared): Prepared => {
    if (prepared.step < from) return prepared;
    const signs = { teacherEntropy: uniform - 0.001, klToUniform: 0.0005 };
    return { ...prepared, monitors: prepared.monitors.map((m) => ({ ...m, ...signs })) };
  };

function worldOf(onCollapse: "warn" | "stop", said?: (prepared: Prepared) => Prepared): World {
  const spec = exampleSpec({ steps: 40, monitor: { everySteps: 5, onCollapse } });
  const world = new World(spec, said);
  world.join();
  world.join();
  return world;
}

const alerts = ({ records }: World) => records.filter(({ kind }) => kind === "alert");

test("a healthy run has its signs in steps.jsonl where the spec wants them, and no alert", () => {
  const world = worldOf("stop");
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  const looked = world.steps.filter(({ monitor }) => monitor !== undefined);
  expect(looked.map(({ step }) => step)).toEqual([0, 5, 10, 15, 20, 25, 30, 35]);
  expect(alerts(world)).toEqual([]);
  expect(viewOf(world.state, 0).alert).toBe("");
});

test("with warn, a collapse is recorded and shown once, and the run goes on", () => {
  const world = worldOf("warn", collapsedFrom(10));
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  expect(alerts(world)).toMatchObject([
    { kind: "alert", collapse: "uniform", step: 30, generation: 1 },
  ]);
  expect(world.state.counters.alerts).toBe(1);
  expect(viewOf(world.state, 0).alert).toMatch(/^uniform collapse .* ln K = 3\.689/);
  expect(world.folded()).toEqual(world.state.durable);
});

test("with stop, the run fails by name, with its last step recorded", () => {
  const world = worldOf("stop", collapsedFrom(10));
  world.settle();
  expect(world.state.outcome).toMatchObject({ kind: "failed", code: "collapsed" });
  expect(world.state.outcome).toMatchObject({ reason: expect.stringMatching(/^uniform collapse/) });
  expect(world.steps.at(-1)?.step).toBe(30);
  expect(alerts(world)).toHaveLength(1);
  expect(world.workers).toEqual([]);
});

test("a collapse seen at the last step does not take the finished run away", () => {
  const spec = exampleSpec({ steps: 31, monitor: { everySteps: 5, onCollapse: "stop" } });
  const world = new World(spec, collapsedFrom(10));
  world.join();
  world.join();
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  expect(alerts(world)).toMatchObject([{ step: 30 }]);
});

test("signs are means over ranks, to the last bit the same for any number of workers; a missing rank leaves none", () => {
  const spec = exampleSpec({ logicalRanks: 7, monitor: { everySteps: 1 } });
  const { layout } = new World(spec).state;
  const prepare = (workers: number) =>
    Array.from({ length: workers }, (_, worker) =>
      examplePrepared(spec, layout, { generation: 1, step: 3, worker, workers }),
    );
  const one = meanMonitor(7, prepare(1));
  expect(one?.teacherEntropy).toBeGreaterThan(0);
  for (const workers of [2, 3, 7]) {
    expect(meanMonitor(7, prepare(workers).toReversed())).toEqual(one);
  }
  expect(meanMonitor(7, prepare(2).slice(1))).toBeUndefined();
});
