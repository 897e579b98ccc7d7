import { expect, test } from "vitest";
import { parseRunSpec } from "../spec/run.js";
import { layoutOf } from "./layout.js";
import { frozenUnitsOf, gramUpdateDue, statePartsOf } from "./state.js";

const base = { steps: 100, batchPerRank: 2, data: { path: "x" }, model: { width: 16, heads: 2 } };

function updates(gram: object): number[] {
  const spec = parseRunSpec({ ...base, loss: { gram } });
  return Array.from({ length: 100 }, (_, step) => step).filter((step) => gramUpdateDue(spec, step));
}

test("a frozen gram teacher is renewed after every so many steps, from the first on, at most max times", () => {
  expect(updates({ update: { every: 40 } })).toEqual([39, 79]);
  expect(updates({ update: { every: 10, first: 35, max: 2 } })).toEqual([39, 49]);
  expect(updates({ update: { every: 10, first: 40, max: 2 } })).toEqual([39, 49]);
  expect(updates({ update: { every: 1, first: 98 } })).toEqual([97, 98, 99]);
  expect(updates({ loadStep: 7 })).toEqual([6]);
  expect(updates({})).toEqual([]);
  expect(updates({ teacher: "ema", update: { every: 10 } })).toEqual([]);
});

test("a frozen teacher is a backbone for Gram, a whole other network for distillation, and only the first is saved", () => {
  const layout = layoutOf(parseRunSpec(base));
  const frozen = (fields: object) => {
    const spec = parseRunSpec({ ...base, ...fields });
    const part = statePartsOf(spec).find(({ kind }) => kind === "frozen");
    return { units: frozenUnitsOf(spec).map(({ name }) => name), saved: part?.saved };
  };
  expect(frozen({}).units).toEqual([]);
  const backbone = layout.units.filter(({ submodule }) => submodule === "backbone");
  expect(frozen({ loss: { gram: {} } })).toEqual({
    units: backbone.map(({ name }) => name),
    saved: true,
  });
  const teacher = { checkpoint: "x", model: { width: 32, depth: 1, heads: 2 }, heads: {} };
  expect(frozen({ distillation: teacher })).toEqual({
    units: ["embed", "block.0", "norm", "dino_head"],
    saved: false,
  });
});
