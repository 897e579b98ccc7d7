/** Every training config that DINOv2 and DINOv3 ship, and the numbers it stands for. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type RunSpec, scalarsAt, sizeOfModel } from "@paddock/contract";
import { expect, test } from "vitest";
import { leaves, parseConfig, parseOfficialOverride } from "./config.js";
import { defaultsOf, families, knownKeys } from "./detect.js";
import { Draft } from "./draft.js";
import { type Family, keyNotes } from "./keys.js";
import { officialRecipe, type Recipe } from "./recipe.js";
import { optionsFor } from "./testing.js";

const folder = fileURLToPath(
  new URL("../../../../test/fixtures/official-configs/", import.meta.url),
);
const textOf = (file: string): string => readFileSync(`${folder}${file}`, "utf8");

function recipe(
  file: string,
  logicalRanks: number,
  overrides: string[] = [],
  family?: Family,
): Recipe {
  return officialRecipe({
    file: parseConfig(textOf(file), file),
    where: file,
    overrides: overrides.map(parseOfficialOverride),
    specOverrides: [],
    family: family ?? null,
    allowUnknown: false,
    options: optionsFor({ logicalRanks, workers: 2 }),
  });
}

const specOf = (...args: Parameters<typeof recipe>): RunSpec => recipe(...args).spec;

test("the defaults of both projects are the written-down ones", () => {
  for (const family of families) {
    expect(parseConfig(textOf(`${family}/ssl_default_config.yaml`), family)).toEqual(
      defaultsOf[family],
    );
  }
});

test("each shipped config is accepted as it is, but for several students in one job", () => {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".yaml"))
    .sort();
  expect(files).toHaveLength(13);
  const several = ["dinov3_vitl16_lvd1689m_distilled", "multi_distillation_test"];
  for (const file of files) {
    const family = file.startsWith("dinov2") ? "dinov2" : "dinov3";
    const shared = file.endsWith("vits_p16.yaml") ? family : undefined;
    if (several.some((name) => file.includes(name))) {
      expect(() => recipe(file, 8)).toThrow(/one student per run.*--logical-ranks/);
      continue;
    }
    const { kind, spec } = recipe(file, 8, [], shared);
    expect(kind).toBe(family);
    expect(spec.heads.dino.weightNorm).toBe(family === "dinov2");
  }
});

test("DINOv2's short ViT-L/16", () => {
  const spec = specOf("dinov2/vitl16_short.yaml", 32);
  expect(spec).toMatchObject({
    name: "test",
    steps: 125_000,
    logicalRanks: 32,
    batchPerRank: 64,
    model: {
      arch: "large",
      patchSize: 16,
      ffn: "mlp",
      registers: 0,
      positions: "learned",
      dropPathRate: 0.3,
      dropPathUniform: true,
      layerScale: 1e-5,
      tokenStd: 1e-6,
      normEps: 1e-6,
      interpolateOffset: 0.1,
    },
    heads: { dino: { prototypes: 65536, bottleneck: 256, hidden: 2048, layers: 3 }, ibot: null },
    loss: { centering: "softmax", dino: 1, ibot: 1, koleo: 0.1, gram: null, samePairs: false },
    masks: { exact: false, circularShift: false, probability: 0.5, ratio: [0.1, 0.5] },
    crops: {
      global: { size: 224, scale: [0.32, 1] },
      local: { size: 96, scale: [0.05, 0.32] },
      localCount: 8,
      flipProbability: 0.5,
      color: { blur: "official", blurKernel: "kernel9" },
    },
    optimizer: {
      kind: "adamw",
      beta2: 0.999,
      layerDecay: 0.9,
      patchEmbedMultiplier: 0.2,
      clipNorm: 3,
      freezeLastLayer: "learning-rate",
    },
    engine: { precision: "fp16" },
    exchange: { dtype: "fp16", initialScale: 65536 },
    checkpoint: { everySteps: 3750, keep: 3 },
    evaluation: { everySteps: 12500 },
  });
  const { schedules } = spec;
  expect(schedules.learningRate).toMatchObject({ kind: "cosine", start: 0, warmupSteps: 12_500 });
  expect(schedules.learningRate.peak).toBeCloseTo(5.66e-3, 5);
  expect(schedules.learningRate.end).toBe(1e-6);
  expect(schedules.weightDecay).toMatchObject({ peak: 0.04, end: 0.4 });
  expect(schedules.momentum).toMatchObject({ peak: 0.992, end: 1 });
  expect(schedules.teacherTemperature).toMatchObject({
    start: 0.04,
    peak: 0.07,
    warmupSteps: 37_500,
  });
  expect(schedules.freezeLastLayerSteps).toBe(1250);
});

test.each([
  ["vitl14", 96, { width: 1024, depth: 24, heads: 16 }],
  ["vitg14", 256, { width: 1536, depth: 40, heads: 24 }],
])("DINOv2's %s", (name, ranks, size) => {
  const spec = specOf(`dinov2/${name}.yaml`, ranks);
  expect(spec.batchPerRank * spec.logicalRanks).toBe(3072);
  expect(sizeOfModel(spec.model)).toEqual(size);
  expect(spec).toMatchObject({
    steps: 625_000,
    model: { patchSize: 14, ffn: "swiglu", ffnMultiple: 8, dropPathRate: 0.4 },
    heads: {
      dino: { prototypes: 131072, bottleneck: 384 },
      ibot: { prototypes: 131072, bottleneck: 256 },
    },
    loss: { centering: "sinkhorn" },
    crops: { local: { size: 98 } },
    optimizer: { layerDecay: 1 },
    schedules: {
      learningRate: { warmupSteps: 100_000 },
      weightDecay: { end: 0.2 },
      momentum: { peak: 0.994, end: 1 },
    },
  });
  expect(spec.schedules.learningRate.peak).toBeCloseTo(3.46e-4, 6);
});

test("DINOv3's ViT-L/16 on ImageNet", () => {
  const spec = specOf("dinov3/vitl_im1k_lin834.yaml", 32);
  expect(spec.schedules.learningRate.peak).toBeCloseTo(5.66e-3, 5);
  expect(spec).toMatchObject({
    steps: 125_000,
    model: {
      arch: "large",
      positions: "rope",
      registers: 0,
      tokenStd: 0.02,
      norm: "layernorm",
      normEps: 1e-6,
      maskKeyBias: false,
      rope: { base: 100, normalize: "separate", rescale: null, dtype: "bf16" },
    },
    heads: { dino: { prototypes: 65536 }, ibot: { prototypes: 65536, weightNorm: false } },
    masks: { exact: true },
    crops: { flipProbability: 0.5, gramSize: null, resolutions: [] },
    schedules: { localWeight: { start: 1, peak: 1, end: 1 } },
    engine: { precision: "bf16", activations: "keep" },
    exchange: { dtype: "fp32", initialScale: 1 },
    checkpoint: { everySteps: 3750, keep: 3 },
  });
});

test("DINOv3's 7B, first stage", () => {
  const { spec, warnings } = recipe("dinov3/dinov3_vit7b16_pretrain.yaml", 256);
  expect(spec).toMatchObject({
    steps: 1_000_000,
    batchPerRank: 16,
    model: {
      arch: "7b",
      mlpRatio: 3,
      ffn: "swiglu",
      ffnMultiple: 64,
      norm: "layernorm",
      normEps: 1e-5,
      qkvBias: false,
      registers: 4,
      untieLocalClsNorm: true,
      untieClsNorm: false,
      dropPathRate: 0.4,
      rope: { rescale: 2, shift: null, jitter: null },
    },
    heads: {
      dino: { prototypes: 262144, bottleneck: 512, hidden: 8192 },
      ibot: { prototypes: 98304, bottleneck: 384, hidden: 4096 },
    },
    loss: { gram: null, koleoGroup: null, koleoTopk: 1 },
    crops: { global: { size: 256 }, local: { size: 112 }, flipProbability: 0 },
    optimizer: { beta2: 0.99, layerDecay: 0.98, clipNorm: 30, patchEmbedMultiplier: 0.2 },
    engine: { precision: "bf16", activations: "recompute" },
    checkpoint: { everySteps: 1000, keep: 3 },
    schedules: { freezeLastLayerSteps: 5000 },
  });
  const at = (step: number): ReturnType<typeof scalarsAt> => scalarsAt(spec, step);
  expect(at(100_000).learningRate).toBeCloseTo(4e-4, 12);
  expect(at(999_999).learningRate).toBeCloseTo(4e-4, 12);
  expect(at(50_000)).toMatchObject({ weightDecay: 0.04, momentum: 0.994 });
  expect(at(50_000).teacherTemperature).toBeCloseTo(0.055, 12);
  expect(at(0).localWeight).toBe(1);
  expect(warnings).toContainEqual(
    expect.objectContaining({ key: "student.fp8_enabled", kind: "unsupported" }),
  );
  expect(warnings).toContainEqual(
    expect.objectContaining({ key: "checkpointing.keep_every", kind: "unsupported" }),
  );
});

test("DINOv3's 7B, Gram anchoring", () => {
  const { spec, blockers } = recipe("dinov3/dinov3_vit7b16_gram_anchor.yaml", 256);
  expect(blockers.join("\n")).toMatch(/gram\.ckpt.*set gram\.ckpt=/);
  expect(spec).toMatchObject({
    steps: 1_200_000,
    loss: {
      gram: {
        teacher: "frozen",
        checkpoint: null,
        update: { first: 1_010_000, every: 10_000, max: 3 },
        normalized: true,
        imageLevel: true,
        negatives: "keep",
        tokens: "all",
        resize: "bicubic",
        antialias: false,
      },
    },
    crops: { gramSize: 512, gramUndistorted: true },
  });
  const at = (step: number): ReturnType<typeof scalarsAt> => scalarsAt(spec, step);
  expect(at(500_000).learningRate).toBeCloseTo(2.4e-4, 12);
  expect(at(500_000).momentum).toBe(0.999);
  expect([at(999_999), at(1_001_000)].map((s) => [s.gramWeight, s.localWeight])).toEqual([
    [0, 1],
    [2, 0.5],
  ]);
  const named = recipe("dinov3/dinov3_vit7b16_gram_anchor.yaml", 256, ["gram.ckpt=/gram"]);
  expect(named.spec.loss.gram?.checkpoint).toBe("/gram");
  expect(named.blockers.join()).not.toContain("gram.ckpt");
});

test("DINOv3's 7B, high resolutions", () => {
  const { spec } = recipe("dinov3/dinov3_vit7b16_high_res_adapt.yaml", 256, ["gram.ckpt=/gram"]);
  expect(spec).toMatchObject({
    steps: 30_000,
    batchPerRank: 8,
    loss: { koleoGroup: 16, koleoTopk: 1, gram: { update: null, checkpoint: "/gram" } },
    crops: {
      resolutions: [
        { global: 512, local: 112, gram: 768, ratio: 0.3 },
        { global: 768, local: 112, gram: 1152, ratio: 0.3 },
        // Of 168 pixels, 160 are in whole patches.
        { global: 768, local: 160, gram: 1152, ratio: 0.3 },
        { global: 768, local: 224, gram: 1152, ratio: 0.05 },
        { global: 768, local: 336, gram: 1152, ratio: 0.05 },
      ],
    },
    checkpoint: { everySteps: 250 },
  });
  const at = (step: number): ReturnType<typeof scalarsAt> => scalarsAt(spec, step);
  expect(at(0)).toMatchObject({ learningRate: 0, teacherTemperature: 0.07, localWeight: 0.5 });
  expect(at(10_000).learningRate).toBeCloseTo(7.07e-5, 7);
  expect(at(20_000)).toMatchObject({ momentum: 0.999, gramWeight: 1.5, weightDecay: 0.04 });
});

test("one student of the distillation, teacher and all", () => {
  const file = "dinov3/dinov3_vitl16_lvd1689m_distilled.yaml";
  const alone = ["multidistillation.enabled=false", "student.resume_from_teacher_chkpt="];
  const gaps = recipe(file, 8, alone).blockers.join("\n");
  expect(gaps).toMatch(/distillation\.full_cfg_path.*\n.*distillation\.checkpoint_path/);
  expect(gaps).toContain("train.dataset_path");
  const filled = [
    "distillation.full_cfg_path=dinov3/dinov3_vit7b16_pretrain.yaml",
    "distillation.checkpoint_path=/teacher",
  ];
  const { spec } = officialRecipe({
    file: parseConfig(textOf(file), file),
    where: file,
    overrides: [...alone, ...filled].map(parseOfficialOverride),
    specOverrides: [],
    family: null,
    allowUnknown: false,
    options: optionsFor({ logicalRanks: 8, read: (path) => parseConfig(textOf(path), path) }),
  });
  expect(spec.distillation).toMatchObject({
    checkpoint: "/teacher",
    model: { arch: "7b", registers: 4 },
    heads: { dino: { prototypes: 262144 } },
  });
  expect(spec).toMatchObject({ steps: 25_000, model: { arch: "large", dropPathRate: 0 } });
  expect(spec.schedules.momentum).toMatchObject({ peak: 0.994, end: 1 });
});

/** Switches that decide which keys are read. */
const switches = {
  dinov2: [[]],
  dinov3: [
    [],
    ["gram.use_loss=true", "gram.ckpt=/g", "crops.gram_teacher_crops_size=224"],
    ["gram.use_loss=true", "gram.ema_teacher=true", "gram.rep_update=false"],
  ],
} as const;

test.each(families)("%s: each key is read, or there is a note on it, and never both", (family) => {
  const used = new Set<string>();
  const get = Draft.prototype.get;
  Draft.prototype.get = function spy(this: Draft, path) {
    used.add(path);
    return get.call(this, path);
  };
  try {
    for (const overrides of switches[family]) {
      recipe(`${family}/ssl_default_config.yaml`, 8, [...overrides]);
    }
    if (family === "dinov3") {
      recipe("dinov3/dinov3_vit7b16_gram_anchor.yaml", 8);
      recipe("dinov3/dinov3_vit7b16_high_res_adapt.yaml", 8);
    }
  } finally {
    Draft.prototype.get = get;
  }
  const noted = new Set(Object.keys(keyNotes[family]));
  const silent = [...knownKeys(family)].filter((key) => !used.has(key) && !noted.has(key));
  expect(silent).toEqual([]);
  const leafKeys = new Set(leaves(defaultsOf[family]).map(([key]) => key));
  expect([...noted].filter((key) => leafKeys.has(key) && used.has(key))).toEqual([]);
});
