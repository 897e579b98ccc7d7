/** The backbone and its heads. */
import { z } from "zod";

const positive = z.number().int().positive();

/** Rotary position encoding of patch tokens (dinov3/layers/rope_position_encoding.py). */
const RopeSpec = z.strictObject({
  /** Periods are base^(2i / (d/2)) for head width d; null: geometric from minPeriod to maxPeriod instead. */
  base: z.number().positive().nullable().default(100),
  minPeriod: z.number().positive().nullable().default(null),
  maxPeriod: z.number().positive().nullable().default(null),
  /** What patch coordinates are divided by: height and width each by itself, or both by the larger or the smaller. */
  normalize: z.enum(["separate", "max", "min"]).default("separate"),
  /** Training only, drawn per block and crop group. Shift in [-s, s] per axis; factors log-uniform in [1/j, j] per axis and in [1/r, r] for both. null: off. */
  shift: z.number().positive().nullable().default(null),
  jitter: z.number().positive().nullable().default(null),
  rescale: z.number().positive().nullable().default(null),
  /** Precision of the tables and the rotation. Official DINOv3: bf16. */
  dtype: z.enum(["fp32", "bf16"]).default("fp32"),
});
export type RopeSpec = z.infer<typeof RopeSpec>;

/** Vision Transformer. Sizes: {dinov2,dinov3}/models/vision_transformer.py; `custom` takes width, depth and heads as given. */
export const ModelSpec = z.strictObject({
  /**
   * Preset of width/depth/heads: tiny 192/12/3, small 384/12/6, base 768/12/12, large 1024/24/16, so400m 1152/27/18, huge2 1280/32/20,
   * giant2 1536/40/24, 7b 4096/40/32. `custom` uses the three fields below.
   */
  arch: z
    .enum(["tiny", "small", "base", "large", "so400m", "huge2", "giant2", "7b", "custom"])
    .default("custom"),
  /** Token width D, in features. Ignored unless arch is custom. Default: small enough for a laptop. */
  width: positive.default(192),
  /** Number of blocks. Ignored unless arch is custom. */
  depth: positive.default(6),
  /** Attention heads; must divide the width. Ignored unless arch is custom. */
  heads: positive.default(3),
  /** Patch side in pixels; crop sizes must be multiples of it. */
  patchSize: positive.default(16),
  /** Input channels: 3 RGB, 1 grey. */
  channels: positive.default(3),
  /** Hidden width of the feed-forward layer over the token width. 4 in all published models but some of DINOv3 (7B: 3). */
  mlpRatio: z.number().positive().default(4),
  /** Feed-forward: GELU MLP, or SwiGLU with two thirds of the hidden width (dinov2/layers/swiglu_ffn.py). */
  ffn: z.enum(["mlp", "swiglu"]).default("mlp"),
  /** SwiGLU's hidden width is rounded up to a multiple of this. DINOv3: 8, 32, 64 or 128. */
  ffnMultiple: positive.default(8),
  /** Register (DINOv3: storage) tokens after cls (arXiv 2309.16588). 0 in DINOv2's first release, 4 with registers. */
  registers: z.number().int().nonnegative().default(0),
  /** Standard deviation that cls and registers start from. DINOv2 1e-6, DINO and DINOv3 0.02. */
  tokenStd: z.number().nonnegative().default(1e-6),
  /** Positions: a learned encoding that is added (DINO, DINOv2), or a rotation of queries and keys (DINOv3). */
  positions: z.enum(["learned", "rope"]).default("learned"),
  rope: RopeSpec.prefault({}),
  /** Norm layers. rmsnorm has no bias. */
  norm: z.enum(["layernorm", "rmsnorm"]).default("layernorm"),
  /** The key part of qkv's bias is held at 0 (DINOv3 mask_k_bias). */
  maskKeyBias: z.boolean().default(false),
  /** Final norms of their own: for cls and registers (`cls_norm`); in training for cls of local crops (`local_cls_norm`). */
  untieClsNorm: z.boolean().default(false),
  untieLocalClsNorm: z.boolean().default(false),
  /** Initial value of LayerScale, or 0 for none. 1e-5 in DINOv2: right for long runs; short ones need more. */
  layerScale: z.number().nonnegative().default(1e-5),
  /** Stochastic depth rate of the student. 0.3 in DINOv2's default; 0 suits small models. */
  dropPathRate: z.number().min(0).lt(1).default(0),
  /** true: the same rate in every block (DINOv2); false: rising linearly from 0 with depth (DINO). */
  dropPathUniform: z.boolean().default(true),
  /** subset: a branch runs on a subset of fixed size of the crops (DINOv2, DINOv3); sample: each crop drops it by itself (DINO). */
  dropPathMode: z.enum(["subset", "sample"]).default("subset"),
  /** Biases of qkv, attention projection, and feed-forward. */
  qkvBias: z.boolean().default(true),
  projBias: z.boolean().default(true),
  ffnBias: z.boolean().default(true),
  /** Offset in the scale factor of position-encoding interpolation; 0 means exact size (0.1 official without registers). */
  interpolateOffset: z.number().nonnegative().default(0.1),
  /** Antialias that interpolation (true in the official models with registers). */
  interpolateAntialias: z.boolean().default(false),
  /** Standard deviation of the truncated normal that weights start from. Official 0.02; narrow, shallow models on short budgets want more. */
  initStd: z.number().positive().default(0.02),
  /** LayerNorm epsilon. */
  normEps: z.number().positive().default(1e-6),
});
export type ModelSpec = z.infer<typeof ModelSpec>;

/** Projection head: MLP -> L2 norm -> prototypes (dino_head.py of the three projects). */
export const HeadSpec = z.strictObject({
  /** Prototypes K. Official: 65,536 (131,072 for L/g). Small data wants few. */
  prototypes: positive.default(65536),
  /** Width of the bottleneck before the prototypes. Official: 256 (384 for L/g). */
  bottleneck: positive.default(256),
  /** Hidden width of the MLP. Official: 2048. */
  hidden: positive.default(2048),
  /** MLP layers, at least 1. Official: 3. */
  layers: positive.default(3),
  /** Prototypes are directions with a magnitude (weight norm: DINO, DINOv2), or a plain linear layer (DINOv3). */
  weightNorm: z.boolean().default(true),
  /** Hold the magnitudes at 1 (DINO's norm_last_layer). */
  freezeMagnitude: z.boolean().default(false),
  /** Batch norm after each hidden layer, over the rows of one logical rank (DINO's use_bn_in_head). */
  batchNorm: z.boolean().default(false),
});
export type HeadSpec = z.infer<typeof HeadSpec>;

export const HeadsSpec = z.strictObject({
  dino: HeadSpec.prefault({}),
  /** iBOT's own head, or null to share DINO's (official default: shared; separate for ViT-L/g). */
  ibot: HeadSpec.nullable().default(null),
});
export type HeadsSpec = z.infer<typeof HeadsSpec>;

const sizes = {
  tiny: { width: 192, depth: 12, heads: 3 },
  small: { width: 384, depth: 12, heads: 6 },
  base: { width: 768, depth: 12, heads: 12 },
  large: { width: 1024, depth: 24, heads: 16 },
  so400m: { width: 1152, depth: 27, heads: 18 },
  huge2: { width: 1280, depth: 32, heads: 20 },
  giant2: { width: 1536, depth: 40, heads: 24 },
  "7b": { width: 4096, depth: 40, heads: 32 },
} as const;

/** Width, depth and heads of a model, the preset resolved. */
export function sizeOfModel(model: ModelSpec): { width: number; depth: number; heads: number } {
  return model.arch === "custom"
    ? { width: model.width, depth: model.depth, heads: model.heads }
    : sizes[model.arch];
}

/** Hidden width of the feed-forward layer. SwiGLU: two thirds, rounded up to `ffnMultiple`. */
export function ffnHidden(model: ModelSpec): number {
  const { width } = sizeOfModel(model);
  const hidden = Math.floor(width * model.mlpRatio);
  if (model.ffn === "mlp") return hidden;
  return Math.ceil(Math.floor((hidden * 2) / 3) / model.ffnMultiple) * model.ffnMultiple;
}
