import { layoutOf, parseRunSpec } from "@paddock/contract";
import { expect, test } from "vitest";
import { initialUnit } from "./init.js";

const spec = parseRunSpec({
  steps: 1,
  batchPerRank: 2,
  seed: 11,
  data: { path: "unused" },
  model: { width: 64, depth: 2, heads: 2, patchSize: 8, registers: 4, layerScale: 0.25 },
  heads: { dino: { prototypes: 300, bottleneck: 64, hidden: 128 } },
});

/** Initial values by parameter name. */
function initial(of = spec): Map<string, Float32Array> {
  const values = new Map<string, Float32Array>();
  for (const unit of layoutOf(of).units) {
    const flat = initialUnit(of, unit);
    for (const { name, offset, elements } of unit.parameters) {
      values.set(name, flat.subarray(offset, offset + elements));
    }
  }
  return values;
}

function moments(values: Float32Array | undefined): { mean: number; std: number; largest: number } {
  const list = [...(values ?? [])];
  const mean = list.reduce((a, b) => a + b, 0) / list.length;
  const variance = list.reduce((a, b) => a + (b - mean) ** 2, 0) / list.length;
  return { mean, std: Math.sqrt(variance), largest: Math.max(...list.map(Math.abs)) };
}

test("each kind of parameter starts as in the official code", () => {
  const values = initial();
  for (const [name, std] of [
    ["backbone.blocks.1.attn.qkv.weight", 0.02],
    ["backbone.pos_embed", 0.02],
    ["dino_head.mlp.0.weight", 0.02],
    ["backbone.cls_token", 1e-6],
    ["backbone.register_tokens", 1e-6],
  ] as const) {
    const found = moments(values.get(name));
    expect(found.std / std, name).toBeGreaterThan(0.8);
    expect(found.std / std, name).toBeLessThan(1.2);
    expect(Math.abs(found.mean) / std, name).toBeLessThan(0.4);
  }
  // PyTorch's default for the layers that the official code leaves alone: uniform in +-1/sqrt(inputs).
  for (const [name, inputs] of [
    ["backbone.patch_embed.proj.weight", 3 * 8 * 8],
    ["backbone.patch_embed.proj.bias", 3 * 8 * 8],
    ["dino_head.last_layer.weight_v", 64],
  ] as const) {
    const limit = 1 / Math.sqrt(inputs);
    const found = moments(values.get(name));
    expect(found.largest, name).toBeLessThanOrEqual(limit);
    expect(found.largest, name).toBeGreaterThan(0.85 * limit);
    expect(found.std / (limit / Math.sqrt(3)), name).toBeCloseTo(1, 0);
  }
  for (const [name, constant] of [
    ["backbone.mask_token", 0],
    ["backbone.blocks.0.attn.qkv.bias", 0],
    ["backbone.blocks.0.norm1.bias", 0],
    ["backbone.norm.weight", 1],
    ["backbone.blocks.0.norm2.weight", 1],
    ["backbone.blocks.1.ls2.gamma", 0.25],
    ["dino_head.last_layer.weight_g", 1],
    ["dino_head.mlp.4.bias", 0],
  ] as const) {
    expect(new Set(values.get(name)), name).toEqual(new Set([constant]));
  }
});

test("DINO and DINOv3 start as in their code", () => {
  const tokens = { tokenStd: 0.02 };
  const v1 = initial({ ...spec, model: { ...spec.model, ...tokens, registers: 0, layerScale: 0 } });
  const rope = { positions: "rope", norm: "rmsnorm", untieClsNorm: true } as const;
  const heads = { ...spec.heads, dino: { ...spec.heads.dino, weightNorm: false } };
  const v3 = initial({ ...spec, heads, model: { ...spec.model, ...tokens, ...rope } });
  const std = (values: Map<string, Float32Array>, name: string) => moments(values.get(name)).std;
  for (const [values, names] of [
    [v1, ["backbone.cls_token", "backbone.pos_embed", "dino_head.mlp.2.weight"]],
    [v3, ["backbone.cls_token", "backbone.register_tokens", "dino_head.last_layer.weight"]],
  ] as const) {
    for (const name of names) {
      expect(std(values, name) / 0.02, name).toBeGreaterThan(0.8);
      expect(std(values, name) / 0.02, name).toBeLessThan(1.2);
    }
    // Uniform in +-1/sqrt(inputs): PyTorch's default in DINO, the same written out in DINOv3.
    const patches = moments(values.get("backbone.patch_embed.proj.weight"));
    expect(patches.largest).toBeLessThanOrEqual(1 / Math.sqrt(3 * 8 * 8));
    expect(patches.std * Math.sqrt(3 * 3 * 8 * 8)).toBeCloseTo(1, 1);
    expect(new Set(values.get("backbone.mask_token"))).toEqual(new Set([0]));
  }
  expect(moments(v1.get("dino_head.last_layer.weight_v")).largest).toBeLessThanOrEqual(1 / 8);
  expect(new Set(v3.get("backbone.cls_norm.weight"))).toEqual(new Set([1]));
  expect([v3.has("backbone.norm.bias"), v3.has("backbone.pos_embed")]).toEqual([false, false]);
});

test("a parameter's values depend on seed and name only", () => {
  const values = initial();
  expect(initial()).toEqual(values);
  const name = "backbone.blocks.1.mlp.fc1.weight";
  expect(values.get("backbone.blocks.0.mlp.fc1.weight")).not.toEqual(values.get(name));
  expect(initial({ ...spec, seed: 12 }).get(name)).not.toEqual(values.get(name));
  const other = { ...spec, model: { ...spec.model, registers: 0, layerScale: 0 } };
  expect(initial(other).get(name)).toEqual(values.get(name));
});
