/** Backbone and heads. */
import type { HeadSpec, RunSpecInput } from "@paddock/contract";
import type { Draft } from "./draft.js";

type ModelInput = NonNullable<RunSpecInput["model"]>;
type HeadsInput = NonNullable<RunSpecInput["heads"]>;
type Arch = NonNullable<ModelInput["arch"]>;

const noConvolutions =
  "Paddock trains Vision Transformers: set student.arch to vit_small, vit_base or vit_large";

/** The model of a config, or of the config of a teacher that is distilled from. */
export function modelOf(draft: Draft): ModelInput {
  const common: ModelInput = {
    patchSize: draft.number("student.patch_size"),
    dropPathRate: draft.number("student.drop_path_rate"),
    layerScale: draft.optionalNumber("student.layerscale") ?? 0,
    qkvBias: draft.boolean("student.qkv_bias"),
    projBias: draft.boolean("student.proj_bias"),
    ffnBias: draft.boolean("student.ffn_bias"),
  };
  return { ...common, ...(draft.family === "dinov2" ? dinov2Model(draft) : dinov3Model(draft)) };
}

function dinov2Model(draft: Draft): ModelInput {
  const arch: Readonly<Record<string, Arch>> = {
    vit_small: "small",
    vit_base: "base",
    vit_large: "large",
    vit_giant2: "giant2",
  };
  // The suffix is of older configs; the official code drops it.
  const memeff = Object.entries(arch).map(([name, size]) => [`${name}_memeff`, size] as const);
  const table = { ...arch, ...Object.fromEntries(memeff) };
  return {
    arch: draft.choice("student.arch", table, noConvolutions),
    ffn: draft.choice("student.ffn_layer", {
      mlp: "mlp",
      swiglu: "swiglu",
      swiglufused: "swiglu",
    } as const),
    mlpRatio: 4,
    tokenStd: 1e-6,
    registers: draft.number("student.num_register_tokens"),
    dropPathUniform: draft.boolean("student.drop_path_uniform"),
    interpolateOffset: draft.number("student.interpolate_offset"),
    interpolateAntialias: draft.boolean("student.interpolate_antialias"),
  };
}

const dinov3Arch: Readonly<Record<string, { arch: Arch; mlpRatio: number }>> = {
  vit_small: { arch: "small", mlpRatio: 4 },
  vit_base: { arch: "base", mlpRatio: 4 },
  vit_large: { arch: "large", mlpRatio: 4 },
  vit_so400m: { arch: "so400m", mlpRatio: 3.777777778 },
  vit_huge2: { arch: "huge2", mlpRatio: 4 },
  vit_giant2: { arch: "giant2", mlpRatio: 4 },
  vit_7b: { arch: "7b", mlpRatio: 3 },
};

const dinov3Ffn = {
  mlp: { ffn: "mlp" },
  swiglu: { ffn: "swiglu", ffnMultiple: 8 },
  swiglu32: { ffn: "swiglu", ffnMultiple: 32 },
  swiglu64: { ffn: "swiglu", ffnMultiple: 64 },
  swiglu128: { ffn: "swiglu", ffnMultiple: 128 },
} as const;

const dinov3Norm = {
  layernorm: { norm: "layernorm", normEps: 1e-6 },
  layernormbf16: { norm: "layernorm", normEps: 1e-5 },
  rmsnorm: { norm: "rmsnorm", normEps: 1e-5 },
} as const;

function dinov3Model(draft: Draft): ModelInput {
  const { arch, mlpRatio } = draft.choice("student.arch", dinov3Arch, noConvolutions);
  draft.derive("model.mlpRatio", mlpRatio, "of the architecture; student.ffn_ratio is not read");
  const norm = draft.choice("student.norm_layer", dinov3Norm);
  draft.derive("model.normEps", norm.normEps, "of student.norm_layer");
  return {
    arch,
    mlpRatio,
    ...draft.choice("student.ffn_layer", dinov3Ffn),
    ...norm,
    tokenStd: 0.02,
    registers: draft.number("student.n_storage_tokens"),
    dropPathUniform: true,
    positions: "rope",
    rope: rope(draft),
    maskKeyBias: draft.boolean("student.mask_k_bias") && draft.boolean("student.qkv_bias"),
    untieClsNorm: draft.boolean("student.untie_cls_and_patch_norms"),
    untieLocalClsNorm: draft.boolean("student.untie_global_and_local_cls_norm"),
  };
}

function rope(draft: Draft): NonNullable<ModelInput["rope"]> {
  const key = (name: string): string => `student.pos_embed_rope_${name}`;
  const base = draft.optionalNumber(key("base"));
  const minPeriod = draft.optionalNumber(key("min_period"));
  const maxPeriod = draft.optionalNumber(key("max_period"));
  const both = minPeriod !== null && maxPeriod !== null;
  draft.demand(
    (base !== null) !== both,
    key("base"),
    "either a base, or a smallest and a largest period",
    `set ${key("base")}=null to use the periods, or ${key("min_period")}=null ${key("max_period")}=null`,
  );
  return {
    base,
    minPeriod,
    maxPeriod,
    normalize: draft.choice(key("normalize_coords"), {
      separate: "separate",
      max: "max",
      min: "min",
    } as const),
    shift: draft.optionalNumber(key("shift_coords")),
    jitter: draft.optionalNumber(key("jitter_coords")),
    rescale: draft.optionalNumber(key("rescale_coords")),
    dtype: draft.derive(
      "model.rope.dtype",
      "bf16",
      "as coded; student.pos_embed_rope_dtype is not read",
    ),
  };
}

export function headsOf(draft: Draft): HeadsInput {
  const separate = draft.boolean("ibot.separate_head");
  draft.demand(
    separate || draft.family === "dinov2",
    "ibot.separate_head",
    "true: DINOv3 has no shared head",
    "set ibot.separate_head=true",
  );
  const dino = head(draft, "dino");
  const ibot = head(draft, "ibot");
  if (separate) return { dino, ibot };
  draft.derive("heads.ibot", null, "shared with dino: ibot.separate_head is false");
  return { dino, ibot: null };
}

function head(draft: Draft, name: string): Partial<HeadSpec> {
  return {
    prototypes: draft.number(`${name}.head_n_prototypes`),
    bottleneck: draft.number(`${name}.head_bottleneck_dim`),
    hidden: draft.number(`${name}.head_hidden_dim`),
    layers: draft.number(`${name}.head_nlayers`),
    weightNorm: draft.family === "dinov2",
  };
}
