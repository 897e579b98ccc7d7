import fc from "fast-check";
import { expect, test } from "vitest";
import { layoutOf } from "../layout/layout.js";
import { parseRunSpec, type RunSpec } from "../spec/run.js";
import { detectWeights, titleOf } from "./detect.js";
import { type DialectName, dialectFor, dialectNamed, weightFormats } from "./dialects.js";
import { modelBlockOf } from "./model-block.js";
import { planImport } from "./plan.js";
import { shapeOf } from "./shape.js";
import { constantValues, elementsOf, type ForeignTensor } from "./tensor.js";

const small = { width: 8, depth: 2, heads: 2, patchSize: 2 };

function specOf(model: Readonly<Record<string, unknown>>, grid = 3): RunSpec {
  const full = { ...small, ...model };
  return parseRunSpec({
    steps: 1,
    batchPerRank: 2,
    model: full,
    heads: { dino: { prototypes: 4, bottleneck: 2, hidden: 4 } },
    data: { path: "x" },
    crops: {
      global: { size: grid * full.patchSize, scale: [0.4, 1] },
      local: { size: full.patchSize, scale: [0.1, 0.4] },
    },
  });
}

const rotary = { positions: "rope", registers: 2, maskKeyBias: true, normEps: 1e-5 } as const;
const models = {
  dino: { layerScale: 0 },
  dinov2: {},
  registers: { registers: 2 },
  swiglu: { ffn: "swiglu", registers: 1 },
  dinov3: rotary,
  "dinov3 swiglu": { ...rotary, ffn: "swiglu", mlpRatio: 6, ffnMultiple: 4 },
  "dinov3 without biases of qkv": { ...rotary, qkvBias: false, maskKeyBias: false },
};

type Values = ReadonlyMap<string, Float32Array>;

/** Every parameter of the backbone with values of its own. */
function parametersOf(spec: RunSpec): Values {
  let next = 1;
  const values = new Map<string, Float32Array>();
  for (const { submodule, parameters } of layoutOf(spec).units) {
    if (submodule !== "backbone") continue;
    for (const { name, elements } of parameters) {
      const flat = Float32Array.from({ length: elements }, () => next++);
      if (spec.model.maskKeyBias && name.endsWith("qkv.bias")) {
        flat.fill(0, elements / 3, (2 * elements) / 3);
      }
      values.set(name, flat);
    }
  }
  return values;
}

/** What an export writes. */
function written(tensors: readonly ForeignTensor[], spec: RunSpec, from: Values): Values {
  return new Map(
    tensors.map((tensor) => {
      const out =
        tensor.copies.length === 0
          ? constantValues(tensor, spec.model.rope)
          : new Float32Array(elementsOf(tensor));
      for (const { parameter, first, at, elements } of tensor.copies) {
        for (let i = 0; i < elements; i++) {
          out[at + i] = (out[at + i] ?? 0) + (from.get(parameter)?.[first + i] ?? Number.NaN);
        }
      }
      return [tensor.name, out] as const;
    }),
  );
}

function shapesOf(tensors: readonly ForeignTensor[]): Map<string, readonly number[]> {
  return new Map(
    tensors
      .filter(({ presence }) => presence !== "accepted")
      .map(({ name, shape }) => [name, shape]),
  );
}

/** What an import makes of it. */
function read(spec: RunSpec, tensors: readonly ForeignTensor[], file: Values): Values {
  const shapes = shapesOf(tensors);
  const detected = detectWeights(shapes, small.heads);
  const { pieces } = planImport(shapes, detected, shapeOf(spec), "file");
  return new Map(
    [...parametersOf(spec)].map(([name, { length }]) => {
      const out = new Float32Array(length);
      for (const piece of pieces.get(name) ?? []) {
        const values = file.get(piece.tensor) as Float32Array;
        out.set(values.subarray(piece.at, piece.at + piece.elements), piece.first);
      }
      return [name, out] as const;
    }),
  );
}

for (const [name, model] of Object.entries(models)) {
  for (const format of weightFormats) {
    test(`${name}: ${format} names hold every value once, are recognised, and come back`, () => {
      const spec = specOf(model);
      const shape = shapeOf(spec);
      const dialect = dialectFor(format, shape);
      expect(dialect.problems(shape, spec.model)).toEqual([]);
      const tensors = dialect.tensors(shape);
      expect(new Set(tensors.map((tensor) => tensor.name)).size).toBe(tensors.length);
      const detected = detectWeights(shapesOf(tensors), small.heads);
      const same: DialectName[] = dialect.name === "dino" ? ["dino", "timm-vit"] : [dialect.name];
      expect(same).toContain(detected.dialect);
      const gridSide = spec.model.positions === "rope" ? 0 : shape.gridSide;
      expect(detected.shape).toEqual({ ...shape, gridSide });
      const parameters = parametersOf(spec);
      const back = read(spec, tensors, written(tensors, spec, parameters));
      for (const [parameter, values] of parameters) {
        const isAbsent = !tensors.some(
          ({ copies, presence }) =>
            presence !== "accepted" &&
            copies.some((copy) => copy.parameter === parameter && !copy.added),
        );
        if (isAbsent) expect(parameter).toBe("backbone.mask_token");
        else if (format === "timm" && /cls_token|pos_embed/.test(parameter)) continue;
        else expect([parameter, back.get(parameter)]).toEqual([parameter, values]);
      }
    });
  }
}

test("timm's registers have no position for cls: the sum comes back in cls_token", () => {
  const spec = specOf(models.registers);
  const tensors = dialectNamed("timm-vit").tensors(shapeOf(spec));
  const parameters = parametersOf(spec);
  const back = read(spec, tensors, written(tensors, spec, parameters));
  const [cls, positions] = ["backbone.cls_token", "backbone.pos_embed"].map((n) => [
    parameters.get(n) as Float32Array,
    back.get(n) as Float32Array,
  ]) as [[Float32Array, Float32Array], [Float32Array, Float32Array]];
  expect(cls[1]).toEqual(cls[0].map((value, i) => value + (positions[0][i] as number)));
  expect(positions[1].subarray(0, small.width)).toEqual(new Float32Array(small.width));
  expect(positions[1].subarray(small.width)).toEqual(positions[0].subarray(small.width));
});

test("queries, keys and values, gate and value, are taken from the right rows", () => {
  const spec = specOf({ ...rotary, ffn: "swiglu", mlpRatio: 6 });
  const shape = shapeOf(spec);
  const from = parametersOf(spec);
  const file = written(dialectNamed("transformers-dinov3").tensors(shape), spec, from);
  const qkv = from.get("backbone.blocks.1.attn.qkv.weight") as Float32Array;
  const w12 = from.get("backbone.blocks.1.mlp.w12.weight") as Float32Array;
  const third = qkv.length / 3;
  for (const [i, letter] of ["q", "k", "v"].entries()) {
    const values = file.get(`layer.1.attention.${letter}_proj.weight`);
    expect(values).toEqual(qkv.subarray(i * third, (i + 1) * third));
  }
  expect(file.get("layer.1.mlp.gate_proj.weight")).toEqual(w12.subarray(0, w12.length / 2));
  expect(file.get("layer.1.mlp.up_proj.weight")).toEqual(w12.subarray(w12.length / 2));
  expect(file.has("layer.1.attention.k_proj.bias")).toBe(false);
});

test("chunked blocks and prefixes are seen through; heads are left out; a second backbone is not", () => {
  const spec = specOf({}, 3);
  const tensors = dialectNamed("dinov2").tensors(shapeOf(spec));
  const chunked = new Map<string, readonly number[]>(
    tensors.map(({ name, shape }) => [
      `teacher.backbone.${name.replace(/^blocks\.(\d+)/, (_, i) => `blocks.${i}.${i}`)}`,
      shape,
    ]),
  );
  chunked.set("teacher.dino_head.mlp.0.weight", [4, 8]);
  const detected = detectWeights(chunked);
  expect(titleOf(detected)).toBe("official DINOv2");
  expect(detected.shape.depth).toBe(2);
  expect(detected.leftOut).toEqual(["teacher.dino_head.mlp.0.weight"]);
  expect(detected.names.get("blocks.1.attn.qkv.weight")).toBe(
    "teacher.backbone.blocks.1.1.attn.qkv.weight",
  );
  planImport(chunked, detected, { ...shapeOf(spec), heads: detected.shape.heads }, "file");
  chunked.set("student.backbone.patch_embed.proj.weight", [8, 3, 2, 2]);
  expect(() => detectWeights(chunked)).toThrow(/one backbone.*"teacher.backbone.".*"student/);
});

/** The message with which a file of `model` is refused by a spec. */
function refusal(
  spec: RunSpec,
  dialect: DialectName,
  change: (shapes: Map<string, readonly number[]>) => void,
): string {
  const shapes = shapesOf(dialectNamed(dialect).tensors(shapeOf(specOf(models.registers))));
  change(shapes);
  try {
    planImport(shapes, detectWeights(shapes, small.heads), shapeOf(spec), "x.safetensors");
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

test("missing, unexpected and misshapen tensors are all listed, and nothing is planned", () => {
  const text = refusal(specOf(models.registers), "transformers-dinov2-registers", (shapes) => {
    shapes.delete("encoder.layer.1.mlp.fc2.bias");
    shapes.set("encoder.layer.1.mlp.fc3.bias", [8]);
    shapes.set("layernorm.weight", [9]);
  });
  expect(text).toContain("encoder.layer.1.mlp.fc2.bias: expected [8], received none");
  expect(text).toContain("encoder.layer.1.mlp.fc3.bias: expected no such tensor");
  expect(text).toContain("layernorm.weight: expected [8], received [9]");
  expect(text).toContain("nothing was loaded");
});

test("another position grid says which crops have it", () => {
  const text = refusal(specOf(models.registers, 5), "dinov2", () => undefined);
  expect(text).toContain("expected a grid of 5 x 5");
  expect(text).toContain("received 3 x 3; set crops.global.size to 6");
});

test("a spec of another model is refused field by field", () => {
  const text = refusal(specOf({ registers: 0, depth: 3 }), "dinov2", () => undefined);
  expect(text).toContain("model.registers: expected 0 (the spec), received 2 (the file)");
  expect(text).toContain("model.depth: expected 3 (the spec), received 2 (the file)");
});

test("what a format cannot say is refused with the field", () => {
  const problems = (format: "transformers" | "timm", model: Readonly<Record<string, unknown>>) => {
    const spec = specOf(model);
    return dialectFor(format, shapeOf(spec)).problems(shapeOf(spec), spec.model);
  };
  expect(problems("transformers", { norm: "rmsnorm" })).toEqual([
    expect.stringContaining("model.norm"),
  ]);
  expect(problems("transformers", { mlpRatio: 3.5 })).toEqual([
    expect.stringContaining("model.mlpRatio"),
  ]);
  expect(problems("timm", { normEps: 1e-5 })).toEqual([expect.stringContaining("model.normEps")]);
  expect(problems("timm", { ...rotary, maskKeyBias: false })).toEqual([
    expect.stringContaining("model.maskKeyBias"),
  ]);
  const periods = { ...rotary, rope: { base: null, minPeriod: 1, maxPeriod: 9 } };
  expect(problems("transformers", periods)).toEqual([expect.stringContaining("rope.base")]);
});

test("the model block of a file's shape makes a spec of that shape", () => {
  fc.assert(
    fc.property(
      fc.record({
        depth: fc.integer({ min: 1, max: 3 }),
        registers: fc.integer({ min: 0, max: 3 }),
        hidden: fc.integer({ min: 1, max: 200 }),
        ffn: fc.constantFrom("mlp" as const, "swiglu" as const),
        layerScale: fc.boolean(),
        qkvBias: fc.boolean(),
        projBias: fc.boolean(),
        ffnBias: fc.boolean(),
      }),
      (fields) => {
        const shape = { ...shapeOf(specOf({})), ...fields };
        expect(shapeOf(specOf(modelBlockOf(shape)))).toEqual(shape);
      },
    ),
  );
  const published = { ...shapeOf(specOf({})), width: 384, depth: 12, heads: 6, hidden: 1536 };
  expect(modelBlockOf({ ...published, patchSize: 14 })).toEqual({ arch: "small", patchSize: 14 });
});
