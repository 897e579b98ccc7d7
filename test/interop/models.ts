/** The backbones that are exchanged: ViT-S of each family at a small image size, and small ones with what ViT-S does not have. */
import { parseRunSpec, type RunSpec, type RunSpecInput } from "@paddock/contract";

export interface Exported {
  readonly name: string;
  readonly spec: RunSpec;
  /** Class that transformers makes of it. */
  readonly transformers: string;
}

/** A model that a library makes with random weights and saves. */
export interface Foreign {
  readonly name: string;
  readonly kind: "make-transformers" | "make-timm";
  readonly config?: string;
  readonly model: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  /** Pixels. */
  readonly size: number;
}

type Model = NonNullable<RunSpecInput["model"]>;

function exported(name: string, transformers: string, size: number, model: Model): Exported {
  const channels = model.channels ?? 3;
  const spec = parseRunSpec({
    name,
    seed: 11,
    steps: 10,
    batchPerRank: 2,
    logicalRanks: 3,
    model,
    heads: { dino: { prototypes: 32, bottleneck: 8, hidden: 16, layers: 2 } },
    data: { path: "none" },
    crops: {
      global: { size, scale: [0.4, 1] },
      local: { size: model.patchSize ?? 16, scale: [0.1, 0.4] },
      mean: [0.485, 0.456, 0.406].slice(0, channels),
      std: [0.229, 0.224, 0.225].slice(0, channels),
    },
  });
  return { name, spec, transformers };
}

const little: Model = { arch: "custom", width: 64, depth: 2, heads: 2 };
const registers: Model = { registers: 4, interpolateOffset: 0, interpolateAntialias: true };
const rotary: Model = { positions: "rope", registers: 4, tokenStd: 0.02 };

export const exportedModels: readonly Exported[] = [
  exported("dino-small", "ViTModel", 64, { arch: "small", patchSize: 16, layerScale: 0 }),
  exported("dinov2-small", "Dinov2Model", 56, { arch: "small", patchSize: 14 }),
  exported("dinov2-registers-small", "Dinov2WithRegistersModel", 56, {
    arch: "small",
    patchSize: 14,
    ...registers,
  }),
  exported("dinov2-swiglu", "Dinov2Model", 42, { ...little, patchSize: 14, ffn: "swiglu" }),
  exported("dinov2-registers-swiglu-grey", "Dinov2WithRegistersModel", 28, {
    ...little,
    ...registers,
    patchSize: 7,
    channels: 1,
    ffn: "swiglu",
    qkvBias: false,
  }),
  exported("registers-without-layerscale", "Dinov2WithRegistersModel", 28, {
    ...little,
    ...registers,
    patchSize: 7,
    layerScale: 0,
  }),
  exported("dinov3-small", "DINOv3ViTModel", 64, {
    arch: "small",
    ...rotary,
    normEps: 1e-5,
    maskKeyBias: true,
  }),
  exported("dinov3-swiglu-no-bias", "DINOv3ViTModel", 48, {
    ...little,
    ...rotary,
    ffn: "swiglu",
    mlpRatio: 6,
    qkvBias: false,
  }),
];

const small = { hidden_size: 384, num_hidden_layers: 12, num_attention_heads: 6 };
const tiny = { hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2 };
const timmTiny = { embed_dim: 64, depth: 2, num_heads: 2, mlp_ratio: 5.25 };

function transformersModel(
  name: string,
  model: string,
  size: number,
  args: Readonly<Record<string, unknown>>,
): Foreign {
  const config = model.replace(/Model$/, "Config");
  return {
    kind: "make-transformers",
    name,
    config,
    model,
    size,
    arguments: { image_size: size, ...args },
  };
}

function timmModel(
  name: string,
  model: string,
  size: number,
  args: Readonly<Record<string, unknown>>,
): Foreign {
  return { kind: "make-timm", name, model, size, arguments: { img_size: size, ...args } };
}

export const foreignModels: readonly Foreign[] = [
  transformersModel("transformers-vit", "ViTModel", 64, {
    ...small,
    patch_size: 16,
    intermediate_size: 1536,
    layer_norm_eps: 1e-6,
  }),
  transformersModel("transformers-dinov2", "Dinov2Model", 56, { ...small, patch_size: 14 }),
  transformersModel("transformers-dinov2-swiglu", "Dinov2Model", 28, {
    ...tiny,
    patch_size: 7,
    use_swiglu_ffn: true,
    qkv_bias: false,
  }),
  transformersModel("transformers-dinov2-registers", "Dinov2WithRegistersModel", 56, {
    ...small,
    patch_size: 14,
    num_register_tokens: 4,
  }),
  transformersModel("transformers-dinov3", "DINOv3ViTModel", 64, {
    ...small,
    patch_size: 16,
    intermediate_size: 1536,
    num_register_tokens: 4,
  }),
  transformersModel("transformers-dinov3-gated", "DINOv3ViTModel", 48, {
    ...tiny,
    patch_size: 16,
    intermediate_size: 256,
    num_register_tokens: 0,
    use_gated_mlp: true,
    hidden_act: "silu",
    key_bias: true,
  }),
  timmModel("timm-vit", "vit_small_patch16_224.dino", 64, {}),
  timmModel("timm-dinov2", "vit_small_patch14_dinov2.lvd142m", 56, {}),
  timmModel("timm-dinov2-registers", "vit_small_patch14_reg4_dinov2.lvd142m", 56, {}),
  timmModel("timm-dinov2-swiglu", "vit_giant_patch14_reg4_dinov2.lvd142m", 42, timmTiny),
  timmModel("timm-dinov3", "vit_small_patch16_dinov3.lvd1689m", 64, {}),
  timmModel("timm-dinov3-biases", "vit_small_patch16_dinov3_qkvb.lvd1689m", 64, {}),
  timmModel("timm-dinov3-swiglu", "vit_small_plus_patch16_dinov3_qkvb.lvd1689m", 48, timmTiny),
];
