import { expect, test } from "vitest";
import { leaves, merge, parseConfig, parseOfficialOverride, show, treeOf } from "./config.js";
import { detectFamily } from "./detect.js";
import type { OfficialOptions } from "./draft.js";
import { officialRecipe, type Recipe } from "./recipe.js";
import { optionsFor } from "./testing.js";
import { recipeJson, recipeText } from "./text.js";

interface Given {
  readonly text?: string;
  readonly overrides?: readonly string[];
  readonly allowUnknown?: boolean;
  readonly options?: Partial<OfficialOptions>;
}

function recipe({ text = "", overrides = [], allowUnknown = false, options = {} }: Given): Recipe {
  return officialRecipe({
    file: parseConfig(text, "x.yaml"),
    where: "x.yaml",
    overrides: overrides.map(parseOfficialOverride),
    specOverrides: [],
    family: null,
    allowUnknown,
    options: optionsFor(options),
  });
}

const v2 = (given: Given = {}): Recipe => recipe({ text: "optim: { base_lr: 0.004 }", ...given });
const v3 = (given: Given = {}): Recipe =>
  recipe({ text: "optim: { lr: 1e-3, optimizer: adamw }", ...given });

test("YAML as official files write it", () => {
  const text =
    "a: 5.0e-05\nb: 1e-3\nc: True\nd: False\ne: 99999999999999999\nf: .\ng: 0.\nh: null\ni:\nj: ''";
  expect(parseConfig(text, "x")).toEqual({
    ...{ a: 5e-5, b: 1e-3, c: true, d: false, e: 99999999999999999n, f: ".", g: 0, h: null },
    ...{ i: null, j: "" },
  });
  expect(show(99999999999999999n)).toBe("99999999999999999");
  expect(() => parseConfig("a: [1", "x.yaml")).toThrow(/x\.yaml: expected YAML/);
  expect(() => parseConfig(`a: $${"{b}"}`, "x.yaml")).toThrow(/interpolation/);
});

test("overrides are YAML values; nothing after = is null", () => {
  const tree = treeOf(
    ["a.b=1e-3", "a.c=[1, 2]", "a.d={e: 3}", "f=", "a.b=2", "g=x=y", "h"].map(
      parseOfficialOverride,
    ),
  );
  expect(tree).toEqual({ a: { b: 2, c: [1, 2], d: { e: 3 } }, f: null, g: "x=y", h: null });
  expect(() => parseOfficialOverride("=1")).toThrow(/expected an override/);
});

test("trees merge key by key, everything else replaces", () => {
  const base = { a: { b: 1, c: [1, 2] }, d: null };
  expect(merge(base, { a: { c: [3] }, d: { e: 1 } })).toEqual({ a: { b: 1, c: [3] }, d: { e: 1 } });
  expect(merge(base, { a: null })).toEqual({ a: null, d: null });
  expect(leaves({ a: { b: 1 }, c: [] })).toEqual([
    ["a.b", 1],
    ["c", []],
  ]);
});

test("the project is told by its keys, or asked for", () => {
  expect(detectFamily({ student: { block_chunks: 4 } })).toBe("dinov2");
  expect(detectFamily({ student: { block_chunks: 4, mask_k_bias: true } })).toBe("dinov3");
  expect(detectFamily({ gram: { use_loss: true } })).toBe("dinov3");
  expect(() => detectFamily({ student: { arch: "vit_small" } })).toThrow(/--official dinov2/);
  expect(() => detectFamily({ optim: { base_lr: 1 }, gram: { use_loss: true } })).toThrow(
    /keys of DINOv2 \(optim\.base_lr\) and of DINOv3 \(gram\.use_loss\)/,
  );
});

test("default < file < override, and each value says which it is", () => {
  const { rows, spec } = v2({
    text: "optim: { base_lr: 0.002 }\nstudent: { arch: vit_base }",
    overrides: ["student.arch=vit_small", "train.batch_size_per_gpu=8"],
  });
  const find = (key: string): unknown => rows.find((row) => row.key === key);
  expect(find("student.arch")).toMatchObject({ value: "vit_small", source: "override" });
  expect(find("optim.base_lr")).toMatchObject({ value: 0.002, source: "file" });
  expect(find("optim.epochs")).toMatchObject({ value: 100, source: "default" });
  expect(spec).toMatchObject({ model: { arch: "small" }, batchPerRank: 8 });
});

test("unknown keys are errors that name the nearest known one, unless allowed", () => {
  const given = { overrides: ["optim.base_rl=1", "student.learning=2"] };
  expect(() => v2(given)).toThrow(/optim\.base_rl: unknown key; did you mean optim\.base_lr\?/);
  expect(() => v2({ overrides: ["student.momentum_teacher=1"] })).toThrow(
    /did you mean teacher\.momentum_teacher\?/,
  );
  const { warnings } = v2({ ...given, allowUnknown: true });
  expect(warnings.map(({ key }) => key)).toEqual(
    expect.arrayContaining(["optim.base_rl", "student.learning"]),
  );
});

test("learning rates are scaled by each project's rules", () => {
  const options = { logicalRanks: 16 }; // 64 * 16 = 1024
  const peak = (made: Recipe): number => made.spec.schedules.learningRate.peak;
  expect(peak(v2({ options }))).toBeCloseTo(0.004, 12);
  expect(peak(v3({ options }))).toBeCloseTo(0.004, 12);
  const rule = (name: string): string[] => [`optim.scaling_rule=${name}`];
  expect(peak(v3({ options, overrides: rule("linear_wrt_256") }))).toBeCloseTo(0.004, 12);
  expect(
    peak(v3({ options, overrides: [...rule("linear_wrt_256"), "train.batch_size_per_gpu=32"] })),
  ).toBeCloseTo(0.002, 12);
  const unscaled = v3({ options, overrides: rule("none") });
  expect(peak(unscaled)).toBe(0.001);
  expect(unscaled.warnings).toContainEqual(
    expect.objectContaining({ key: "optim.scaling_rule", kind: "note" }),
  );
  expect(() => v2({ options, overrides: rule("linear_wrt_256") })).toThrow(/optim\.scaling_rule/);
});

test("what the official code refuses, and what Paddock has not, are errors with a remedy", () => {
  const refused: [(given: Given) => Recipe, string, RegExp][] = [
    [v2, "student.arch=convnext_tiny", /student\.arch: expected one of .*Vision Transformers/],
    [v2, "student.ffn_layer=identity", /student\.ffn_layer/],
    [v2, "train.centering=none", /train\.centering/],
    [v2, "teacher.teacher_temp=null", /teacher\.teacher_temp: expected a number, received null/],
    [v2, "crops.global_crops_size=[224,448]", /one size/],
    [v3, "student.arch=convnext_base", /Vision Transformers/],
    [v3, "ibot.separate_head=false", /ibot\.separate_head/],
    [v3, "train.centering=centering", /sinkhorn_knopp/],
    [v3, "crops.local_crops_number=0", /crops\.local_crops_number/],
    [v3, "dino.koleo_topk=2", /koleo_loss_distributed=true/],
    [v3, "dino.koleo_distributed_replicas=1", /koleo_distributed_loss_group_size/],
    [v3, "gram.use_loss=true", /crops\.gram_teacher_crops_size/],
    [v3, "train.data_config=x.json", /train\.data_config/],
    [v3, "crops.teacher_to_student_resolution_scale=2", /teacher_to_student_resolution_scale=1/],
    [v3, "crops.local_crops_size=[96,112]", /crops\.local_crops_size/],
    [v3, "optim.epochs=1.0001", /whole number of steps/],
    [v3, "multidistillation.enabled=true", /one student per run/],
    [v3, "train.compile.x=1", /train\.compile\.x: unknown key/],
  ];
  for (const [make, override, message] of refused) {
    expect(() => make({ overrides: [override] }), override).toThrow(message);
  }
  expect(() =>
    v3({
      overrides: ["student.pos_embed_rope_min_period=1", "student.pos_embed_rope_max_period=9"],
    }),
  ).toThrow(/pos_embed_rope_base=null/);
});

test("keys that change nothing are warned about when somebody sets them, and only then", () => {
  expect(
    v3()
      .warnings.filter(({ kind }) => kind === "dead")
      .map(({ key }) => key),
  ).toEqual(["optim.optimizer"]);
  const { warnings } = v3({
    overrides: [
      ...["student.ffn_ratio=6", "train.compile=false", "student.fp8_enabled=true"],
      ...[
        "schedules.lr={start: 0, peak: 1e-3, end: 1e-6, warmup_epochs: 1, freeze_last_layer_epochs: 1}",
      ],
      ...["weight_decay", "momentum", "teacher_temp"].map(
        (name) => `schedules.${name}={start: 0.9, peak: 0.9, end: 0.9, warmup_epochs: 0}`,
      ),
    ],
  });
  const kinds = new Map(warnings.map(({ key, kind }) => [key, kind]));
  expect(kinds.get("student.ffn_ratio")).toBe("dead");
  expect(kinds.get("train.compile")).toBe("ignored");
  expect(kinds.get("student.fp8_enabled")).toBe("unsupported");
  // `schedules` replaces it.
  expect(kinds.get("optim.lr")).toBe("dead");
});

test("datasets: ImageNet's layout below root, another folder, or a gap that says what to give", () => {
  const set = (path: string): string[] => [`train.dataset_path=${path}`];
  const there = { exists: (path: string) => path.startsWith("/in") };
  const imageNet = set("ImageNet:split=TRAIN:root=/in:extra=/x");
  expect(v2({ overrides: imageNet, options: there }).spec.data).toMatchObject({
    ...{ kind: "folder", path: "/in/train", validationPath: "/in/val", threads: 4 },
  });
  const flat = { exists: (path: string) => path === "/in" };
  const data = v2({ overrides: set("ImageNet22k:root=/in:extra=/x"), options: flat }).spec.data;
  expect(data).toMatchObject({ path: "/in", validationPath: null });
  expect(v2({ options: { data: "/my/train" } })).toMatchObject({
    blockers: [],
    spec: { data: { path: "/my/train", validationPath: null } },
  });
  for (const [text, why] of [
    ["<TRAIN/DATASET>", "names no dataset"],
    ["ImageNet:split=TRAIN", "says nothing of where"],
    ["ImageNet:split=TRAIN:root=/no", "no folder /no"],
    ["ImageNet:split=VAL:root=/in", "split=TRAIN"],
    ["CocoCaptions:root=/in", "received CocoCaptions"],
  ] as const) {
    const { blockers } = v2({ overrides: set(text), options: there });
    expect(blockers.join()).toMatch(new RegExp(`${why}.*--data`));
  }
});

test("precision is the config's, the flag's, or fp32 where nothing else pays, and says which", () => {
  expect(v3().spec.engine.precision).toBe("bf16");
  const cpu = v2({ options: { fp32Because: "no GPU on this machine" } });
  expect(cpu.spec.engine.precision).toBe("fp32");
  expect(recipeText(cpu)).toMatch(/engine\.precision +fp32 += no GPU.*fp16/);
  expect(v2({ options: { fp32Because: "x", precision: "fp16" } }).spec.engine.precision).toBe(
    "fp16",
  );
});

test("fp16 exchange on request brings its scale, and is said to be the command line's", () => {
  const { spec, derived } = officialRecipe({
    file: parseConfig("optim: { lr: 1e-3 }\ngram: { use_loss: false }", "x.yaml"),
    where: "x.yaml",
    overrides: [],
    specOverrides: [{ path: ["exchange", "dtype"], value: "fp16" }],
    family: null,
    allowUnknown: false,
    options: optionsFor({}),
  });
  expect(spec.exchange).toMatchObject({ dtype: "fp16", initialScale: 65536 });
  expect(derived.filter(({ key }) => key === "exchange.dtype")).toEqual([
    { key: "exchange.dtype", value: "fp16", formula: "command line" },
  ]);
});

test("weights to start from", () => {
  expect(v2({ overrides: ["student.pretrained_weights=/w.safetensors"] }).spec.init).toMatchObject({
    checkpoint: "/w.safetensors",
    load: "backbone",
  });
  expect(v3({ overrides: ["student.resume_from_teacher_chkpt=/c"] }).spec.init).toMatchObject({
    checkpoint: "/c",
    load: "teacher",
  });
  expect(v2({ overrides: ["student.pretrained_weights=/w.pth"] }).blockers.join()).toContain(
    ".safetensors",
  );
});

test("the text holds values, sources and formulas; the JSON survives integers beyond 2^53", () => {
  const made = v3({ overrides: ["checkpointing.keep_every=99999999999999999"] });
  const text = recipeText(made);
  expect(text).toMatch(/^DINOv3 config\n/);
  expect(text).toMatch(/ {2}keep_every +99999999999999999 +override\n/);
  expect(text).toMatch(
    /schedules\.learningRate\.peak +0\.00141\d+ += optim\.lr \* 4 \* sqrt\(128 \/ 1024\)/,
  );
  expect(JSON.parse(recipeJson(made))).toMatchObject({ kind: "dinov3", spec: { steps: 125_000 } });
});
