/** The backbone and its heads. */
import { z } from "zod";

const positive = z.number().int().positive();

/** Vision Transformer. Sizes: dinov2/models/vision_transformer.py; `custom` takes width, depth and heads as given. */
export const ModelSpec = z.strictObject({
  /** Preset of width/depth/heads: tiny 192/12/3, small 384/12/6, base 768/12/12, large 1024/24/16, giant2 1536/40/24. `custom` uses the three fields below. */
  arch: z.enum(["tiny", "small", "base", "large", "giant2", "custom"]).default("custom"),
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
  /** Hidden width of the feed-forward layer over the token width. 4 in all published models but v3-7B. */
  mlpRatio: z.number().positive().default(4),
  /** Feed-forward: GELU MLP, or SwiGLU with hidden rounded to a multiple of 8 (dinov2/layers/swiglu_ffn.py). */
  ffn: z.enum(["mlp", "swiglu"]).default("mlp"),
  /** Register tokens after cls (arXiv 2309.16588). 0 in DINOv2's first release, 4 with registers. */
  registers: z.number().int().nonnegative().default(0),
  /** Initial value of LayerScale, or 0 for none. 1e-5 in DINOv2: right for long runs; short ones need more. */
  layerScale: z.number().nonnegative().default(1e-5),
  /** Stochastic depth rate of the student. 0.3 in DINOv2's default; 0 suits small models. */
  dropPathRate: z.number().min(0).lt(1).default(0),
  /** true: the same rate in every block (DINOv2); false: rising linearly from 0 with depth (DINO). */
  dropPathUniform: z.boolean().default(true),
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

/** Projection head: MLP -> L2 norm -> weight-normalised prototypes (dinov2/layers/dino_head.py). */
export const HeadSpec = z.strictObject({
  /** Prototypes K. Official: 65,536 (131,072 for L/g). Small data wants few. */
  prototypes: positive.default(65536),
  /** Width of the bottleneck before the prototypes. Official: 256 (384 for L/g). */
  bottleneck: positive.default(256),
  /** Hidden width of the MLP. Official: 2048. */
  hidden: positive.default(2048),
  /** MLP layers, at least 1. Official: 3. */
  layers: positive.default(3),
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
  giant2: { width: 1536, depth: 40, heads: 24 },
} as const;

/** Width, depth and heads of a model, the preset resolved. */
export function sizeOfModel(model: ModelSpec): { width: number; depth: number; heads: number } {
  return model.arch === "custom"
    ? { width: model.width, depth: model.depth, heads: model.heads }
    : sizes[model.arch];
}

/** Hidden width of the feed-forward layer. SwiGLU: two thirds, rounded up to a multiple of 8. */
export function ffnHidden(model: ModelSpec): number {
  const { width } = sizeOfModel(model);
  const hidden = Math.floor(width * model.mlpRatio);
  return model.ffn === "mlp" ? hidden : Math.floor((Math.floor((hidden * 2) / 3) + 7) / 8) * 8;
}
