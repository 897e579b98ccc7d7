import { expect, test } from "vitest";
import { needsCheckpoint, parseStages, specOfStage } from "./staged-spec.js";

const common = { name: "x", steps: 4, batchPerRank: 2, data: { path: "images" } };

test("a stage overrides what stands beside the stages: objects are merged, all else is replaced", () => {
  const { name, stages } = parseStages({
    ...common,
    loss: { koleo: 0.2, ibot: 0.5 },
    stages: [{ name: "a" }, { name: "b", steps: 9, loss: { ibot: 1 } }],
  });
  const [a, b] = stages.map((stage) => specOfStage(stage, undefined));
  expect(name).toBe("x");
  expect([a?.name, a?.steps, a?.loss.ibot, a?.loss.koleo]).toEqual(["x-a", 4, 0.5, 0.2]);
  expect([b?.name, b?.steps, b?.loss.ibot, b?.loss.koleo]).toEqual(["x-b", 9, 1, 0.2]);
  expect(stages.some(({ fields }) => needsCheckpoint(fields))).toBe(false);
});

test("a stage begins with the checkpoint before it; a distillation teacher is the network before it", () => {
  const { stages } = parseStages({
    ...common,
    model: { width: 64, heads: 2 },
    stages: [
      { name: "a" },
      { name: "b", init: { load: "resume" }, steps: 9 },
      { name: "c", distillation: {}, model: { width: 32, heads: 1 } },
      { name: "d", init: { checkpoint: "/elsewhere" } },
    ],
  });
  const [, b, c, d] = stages.map((stage) => specOfStage(stage, "/before"));
  expect(b?.init).toMatchObject({ checkpoint: "/before", load: "resume" });
  expect(c?.distillation?.checkpoint).toBe("/before");
  expect([c?.distillation?.model.width, c?.model.width]).toEqual([64, 32]);
  expect(d?.init?.checkpoint).toBe("/elsewhere");
});

test("what cannot be run is refused before anything runs, with the stage's name", () => {
  const refused = (stages: unknown) => () => parseStages({ ...common, stages });
  expect(refused([])).toThrow("received none");
  expect(refused([{ name: "A b" }])).toThrow("stages.0.name");
  expect(refused([{ name: "a" }, { name: "a" }])).toThrow("a twice");
  expect(refused([{ name: "a", init: { load: "resume" } }])).toThrow("no stage before it");
  expect(refused([{ name: "a" }, { name: "b", steps: -1 }])).toThrow("stage b");
});
