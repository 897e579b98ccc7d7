import { expect, test } from "vitest";
import { PaddockError } from "../errors.js";
import { layoutOf } from "../layout/layout.js";
import { resolutionAt } from "./data.js";
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

test("crops that cannot be made are refused", () => {
  const crops = (changes: RunSpecInput["crops"]) =>
    problemsOf({ ...minimal, model: { positions: "rope" }, crops: changes });
  expect(crops({ localInGlobal: true, localCount: 7 })).toContain("expected an even number");
  expect(crops({ localInGlobal: true, local: { size: 224, scale: [0.1, 0.3] } })).toContain(
    "at least one patch of 16 smaller",
  );
  expect(crops({ gramSize: 250 })).toContain("crops.gramSize: expected a multiple");
  const sizes = { global: 256, local: 112, ratio: 0.3 };
  expect(crops({ resolutions: [sizes, { ...sizes, gram: 512 }] })).toContain("in all of them");
  expect(crops({ resolutions: [{ ...sizes, local: 100 }] })).toContain("multiples of");
  expect(crops({ localInGlobal: true, resolutions: [sizes] })).toBe("");
});

test("sizes of a step are drawn with the given ratios, and only from seed and step", () => {
  const spec = parseRunSpec({
    ...minimal,
    model: { positions: "rope" },
    crops: {
      resolutions: [
        { global: 512, local: 112, gram: 768, ratio: 3 },
        { global: 768, local: 112, gram: 1152, ratio: 6 },
        { global: 768, local: 224, gram: 1152, ratio: 1 },
      ],
    },
  });
  const numSteps = 4000;
  const drawn = Array.from({ length: numSteps }, (_, step) => resolutionAt(spec, step));
  spec.crops.resolutions.forEach((resolution, i) => {
    const share = drawn.filter((sizes) => sizes === resolution).length / numSteps;
    const wanted = [0.3, 0.6, 0.1][i] as number;
    const error = Math.sqrt((wanted * (1 - wanted)) / numSteps);
    expect(Math.abs(share - wanted)).toBeLessThanOrEqual(4 * error);
  });
  expect(resolutionAt(spec, 17)).toBe(drawn[17]);
  const otherwise = drawn.map((_, step) => resolutionAt({ ...spec, seed: 1 }, step));
  expect(otherwise).not.toEqual(drawn);
  expect(resolutionAt(parseRunSpec(minimal), 5)).toEqual({ global: 224, local: 96, gram: null });
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

test("checkpoint.storage is a bucket with a prefix: no keys, no endpoint, no way out of the prefix", () => {
  const problems = (storage: unknown) => problemsOf({ ...minimal, checkpoint: { storage } });
  for (const storage of [null, "s3://bucket", "s3://my.bucket-1/team/run_1=a.b"]) {
    expect(problems(storage)).toBe("");
  }
  for (const storage of [
    "bucket",
    "s3://",
    "s3://Bucket",
    "s3://bucket/",
    "s3://bucket/a//b",
    "s3://bucket/a/../b",
    "s3://bucket/..",
    "s3://key:secret@bucket/a",
    "s3://host:9000/bucket",
    "https://host/bucket",
  ]) {
    expect(problems(storage)).toContain('checkpoint.storage: expected "s3://bucket"');
  }
});
