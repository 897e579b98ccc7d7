import { expect, test } from "vitest";
import { PaddockError } from "../errors.js";
import { layoutOf } from "../layout/layout.js";
import { parseRunSpec, type RunSpecInput } from "./run.js";

const minimal: RunSpecInput = { steps: 10, batchPerRank: 4, data: { path: "images" } };

function problemsOf(spec: unknown): string {
  try {
    parseRunSpec(spec);
  } catch (error) {
    expect(error).toBeInstanceOf(PaddockError);
    expect((error as PaddockError).code).toBe("invalid-spec");
    return (error as PaddockError).message;
  }
  return "";
}

test("an unknown key is refused and the nearest known one named, at any depth", () => {
  expect(problemsOf({ ...minimal, model: { pathSize: 7 } })).toContain('did you mean "patchSize"?');
  expect(problemsOf({ ...minimal, stepz: 3 })).toContain('did you mean "steps"?');
  expect(problemsOf({ ...minimal, crops: { color: { hueue: 1 } } })).toContain(
    'crops.color.hueue: unknown key "hueue"; did you mean "hue"?',
  );
});

test("contradictions between fields say expected, received and what to change", () => {
  expect(problemsOf({ ...minimal, crops: { global: { size: 30, scale: [0.4, 1] } } })).toContain(
    "expected a multiple of model.patchSize 16, received 30",
  );
  expect(problemsOf({ ...minimal, fleet: { workers: 9 } })).toContain("at most logicalRanks");
  expect(problemsOf({ ...minimal, batchPerRank: 1 })).toContain("KoLeo");
  expect(problemsOf({ ...minimal, loss: { koleoTopk: 4 } })).toContain("at least 5 images");
  for (const koleoGroup of [6, 12]) {
    expect(problemsOf({ ...minimal, loss: { koleoGroup } })).toContain("loss.koleoGroup");
  }
  expect(problemsOf({ ...minimal, loss: { koleoGroup: 8, koleoTopk: 7 } })).toBe("");
  const gram = { imageLevel: true, tokens: "masked" };
  expect(problemsOf({ ...minimal, loss: { gram } })).toContain("loss.gram.tokens");
  for (const peak of [-0.04, 0]) {
    const schedules = { teacherTemperature: { peak } };
    expect(problemsOf({ ...minimal, schedules })).toContain("schedules.teacherTemperature.peak");
  }
});

test("a parsed spec is complete, frozen, and parses to itself", () => {
  const spec = parseRunSpec(minimal);
  expect(Object.isFrozen(spec.crops.global)).toBe(true);
  expect(parseRunSpec(JSON.parse(JSON.stringify(spec)))).toEqual(spec);
});

test("backbone parameter counts are the published ones", () => {
  const backbone = (
    arch: "small" | "base" | "large" | "giant2",
    ffn: "mlp" | "swiglu" = "mlp",
  ): number =>
    layoutOf(
      parseRunSpec({
        ...minimal,
        model: { arch, ffn, patchSize: 14 },
        crops: {
          global: { size: 518, scale: [0.32, 1] },
          local: { size: 98, scale: [0.05, 0.32] },
        },
      }),
    )
      .units.filter((unit) => unit.submodule === "backbone")
      .flatMap((unit) => unit.parameters)
      .reduce((sum, parameter) => sum + parameter.elements, 0);
  // Those of the released DINOv2 backbones (position grid 37 x 37).
  expect(backbone("small")).toBe(22_056_576);
  expect(backbone("base")).toBe(86_580_480);
  expect(backbone("large")).toBe(304_368_640);
  expect(backbone("giant2", "swiglu")).toBe(1_136_480_768);
});
