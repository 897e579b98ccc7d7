/** The configuration files that go with exported weights. */
import { type Dialect, wholeRatio } from "./dialects.js";
import type { BackboneOptions, BackboneShape } from "./shape.js";

export interface ExportFacts extends BackboneOptions {
  /** Pixels: side of the global crops, which the positions were trained at. */
  readonly imageSize: number;
  /** Per channel, of pixels in [0, 1]. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly interpolateOffset: number;
  readonly interpolateAntialias: boolean;
}

type Json = Record<string, unknown>;

/** Files by name, as values to be written as JSON. */
export function configFiles(
  dialect: Dialect,
  shape: BackboneShape,
  facts: ExportFacts,
): Record<string, Json> {
  switch (dialect.format) {
    case "official":
      return { "config.json": officialConfig(dialect, shape, facts) };
    case "transformers":
      return {
        "config.json": transformersConfig(dialect, shape, facts),
        "preprocessor_config.json": preprocessorConfig(facts),
      };
    case "timm":
      return { "config.json": timmConfig(dialect, shape, facts) };
  }
}

/** The arguments of the repository's vision_transformer.py; it has no configuration file of its own. */
function officialConfig(dialect: Dialect, shape: BackboneShape, facts: ExportFacts): Json {
  const common = {
    family: dialect.name,
    img_size: facts.imageSize,
    patch_size: shape.patchSize,
    in_chans: shape.channels,
    embed_dim: shape.width,
    depth: shape.depth,
    num_heads: shape.heads,
    qkv_bias: shape.qkvBias,
    norm_eps: facts.normEps,
    mean: facts.mean,
    std: facts.std,
  };
  if (dialect.name === "dino") return { ...common, mlp_ratio: shape.hidden / shape.width };
  const second = {
    ...common,
    ffn_layer: shape.ffn,
    ffn_hidden: shape.hidden,
    ffn_bias: shape.ffnBias,
    proj_bias: shape.projBias,
    init_values: shape.layerScale ? 1e-5 : null,
  };
  if (dialect.name === "dinov2") {
    return {
      ...second,
      block_chunks: 0,
      num_register_tokens: shape.registers,
      interpolate_offset: facts.interpolateOffset,
      interpolate_antialias: facts.interpolateAntialias,
    };
  }
  const { base, minPeriod, maxPeriod, normalize } = facts.rope;
  return {
    ...second,
    n_storage_tokens: shape.registers,
    mask_k_bias: shape.maskKeyBias,
    norm_layer: shape.norm,
    untie_cls_and_patch_norms: shape.untieClsNorm,
    untie_global_and_local_cls_norm: shape.untieLocalClsNorm,
    pos_embed_rope_base: base,
    pos_embed_rope_min_period: minPeriod,
    pos_embed_rope_max_period: maxPeriod,
    pos_embed_rope_normalize_coords: normalize,
  };
}

function transformersConfig(dialect: Dialect, shape: BackboneShape, facts: ExportFacts): Json {
  const common = {
    hidden_size: shape.width,
    num_hidden_layers: shape.depth,
    num_attention_heads: shape.heads,
    image_size: facts.imageSize,
    patch_size: shape.patchSize,
    num_channels: shape.channels,
    hidden_act: "gelu",
    layer_norm_eps: facts.normEps,
    dtype: "float32",
  };
  if (dialect.name === "transformers-vit") {
    return {
      architectures: ["ViTModel"],
      model_type: "vit",
      ...common,
      intermediate_size: shape.hidden,
      qkv_bias: shape.qkvBias,
    };
  }
  if (dialect.name === "transformers-dinov3") return dinov3Config(shape, facts, common);
  const registers = shape.registers > 0;
  return {
    architectures: [registers ? "Dinov2WithRegistersModel" : "Dinov2Model"],
    model_type: registers ? "dinov2_with_registers" : "dinov2",
    ...common,
    mlp_ratio: wholeRatio(shape),
    qkv_bias: shape.qkvBias,
    use_swiglu_ffn: shape.ffn === "swiglu",
    ...(registers ? { num_register_tokens: shape.registers } : {}),
  };
}

function dinov3Config(shape: BackboneShape, facts: ExportFacts, common: Json): Json {
  return {
    architectures: ["DINOv3ViTModel"],
    model_type: "dinov3_vit",
    ...common,
    hidden_act: shape.ffn === "swiglu" ? "silu" : "gelu",
    use_gated_mlp: shape.ffn === "swiglu",
    intermediate_size: shape.hidden,
    num_register_tokens: shape.registers,
    query_bias: shape.qkvBias,
    key_bias: shape.qkvBias && !shape.maskKeyBias,
    value_bias: shape.qkvBias,
    proj_bias: shape.projBias,
    mlp_bias: shape.ffnBias,
    rope_theta: facts.rope.base,
    pos_embed_shift: null,
    pos_embed_jitter: null,
    pos_embed_rescale: null,
  };
}

/** As our own evaluation looks at images: the shorter side to 256/224 of the crop, bicubic, the centre. */
function preprocessorConfig({ imageSize, mean, std }: ExportFacts): Json {
  return {
    image_processor_type: "BitImageProcessor",
    do_convert_rgb: mean.length === 3,
    do_resize: true,
    size: { shortest_edge: Math.round((imageSize * 256) / 224) },
    resample: 3,
    do_center_crop: true,
    crop_size: { height: imageSize, width: imageSize },
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: mean,
    image_std: std,
  };
}

/** As the hub's timm models have it: `timm.create_model("local-dir:<folder>", pretrained=True)` reads it. */
function timmConfig(dialect: Dialect, shape: BackboneShape, facts: ExportFacts): Json {
  const { imageSize, mean, std } = facts;
  const common = {
    img_size: imageSize,
    patch_size: shape.patchSize,
    in_chans: shape.channels,
    embed_dim: shape.width,
    depth: shape.depth,
    num_heads: shape.heads,
    qkv_bias: shape.qkvBias,
    ...(shape.layerScale ? { init_values: 1e-5 } : {}),
    global_pool: "token",
  };
  const eva = dialect.name === "timm-eva";
  return {
    architecture: eva ? evaArchitecture(shape, facts) : vitArchitecture(shape),
    num_classes: 0,
    num_features: shape.width,
    global_pool: "token",
    // Ours: timm has no field for it, and we want to know it when the weights come back.
    norm_eps: facts.normEps,
    model_args: { ...common, ...(eva ? evaArguments(shape, facts) : vitArguments(shape)) },
    pretrained_cfg: {
      tag: "paddock",
      custom_load: false,
      input_size: [shape.channels, imageSize, imageSize],
      fixed_input_size: !eva,
      interpolation: "bicubic",
      crop_pct: 224 / 256,
      crop_mode: "center",
      mean,
      std,
      num_classes: 0,
      pool_size: null,
      first_conv: "patch_embed.proj",
      classifier: "head",
    },
  };
}

/** One of timm's names; `model_args` override its sizes, so that only what arguments cannot say must be right: SwiGLU. */
function vitArchitecture({ width, layerScale, registers, ffn }: BackboneShape): string {
  if (ffn === "swiglu") return `vit_giant_patch14${registers > 0 ? "_reg4" : ""}_dinov2`;
  const size = { 768: "base", 1024: "large" }[width] ?? "small";
  if (!layerScale && registers === 0) return `vit_${size}_patch16_224`;
  return `vit_${size}_patch14${registers > 0 ? "_reg4" : ""}_dinov2`;
}

function vitArguments(shape: BackboneShape): Json {
  const { width, hidden, registers, ffn, projBias } = shape;
  return {
    // SwiGLU's two halves are one layer there.
    mlp_ratio: ratioFor(ffn === "swiglu" ? 2 * hidden : hidden, width),
    proj_bias: projBias,
    ...(registers > 0 ? { reg_tokens: registers, no_embed_class: true } : {}),
    ...(shape.layerScale ? {} : { init_values: 0 }),
  };
}

/** An epsilon of 1e-6 is no argument, but the default of Eva's other architectures. */
function evaArchitecture({ width, ffn, qkvBias }: BackboneShape, { normEps }: ExportFacts): string {
  if (normEps === 1e-6) return "eva02_small_patch14_224";
  const biased = qkvBias ? "_qkvb" : "";
  if (ffn === "swiglu") return `vit_small_plus_patch16_dinov3${biased}`;
  const size = { 768: "base", 1024: "large" }[width] ?? "small";
  return `vit_${size}_patch16_dinov3${biased}`;
}

function evaArguments(shape: BackboneShape, { rope }: ExportFacts): Json {
  return {
    dynamic_img_size: true,
    mlp_ratio: ratioFor(shape.hidden, shape.width),
    swiglu_mlp: shape.ffn === "swiglu",
    swiglu_align_to: 1,
    num_reg_tokens: shape.registers,
    use_fc_norm: false,
    use_abs_pos_emb: false,
    use_rot_pos_emb: true,
    rope_type: "dinov3",
    rope_temperature: rope.base,
    rope_rotate_half: true,
  };
}

/** A ratio r with int(r * width) = hidden. */
function ratioFor(hidden: number, width: number): number {
  const exact = hidden / width;
  return Math.floor(exact * width) === hidden ? exact : (hidden + 0.25) / width;
}
