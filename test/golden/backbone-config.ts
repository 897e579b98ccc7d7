/** The configuration of a recorded backbone as ours. */
import type { RopeSpec } from "@paddock/contract";
import type { VitConfig } from "@paddock/model";
import { numberOf, oneOf } from "./backbone.js";
import type { Golden } from "./file.js";

type Config = Record<string, unknown>;

const rates = ["shift", "jitter", "rescale"] as const;

/** What all three projects call alike. */
function common(golden: Golden, registers: string): VitConfig {
  const { config } = golden;
  const name = `params.${registers}`;
  const count = golden.has(name) ? (golden.shape(name)[1] as number) : 0;
  return {
    width: numberOf(config, "embed", "embed_dim"),
    depth: numberOf(config, "depth"),
    heads: numberOf(config, "heads", "num_heads"),
    patchSize: numberOf(config, "patch", "patch_size"),
    registers: count,
    ffn: "mlp",
    normEps: numberOf(config, "norm_eps"),
    maskKeyBias: false,
    rope: null,
    gridSide: numberOf(config, "img", "img_size") / numberOf(config, "patch", "patch_size"),
    interpolateOffset: 0.1,
    interpolateAntialias: false,
  };
}

/** DINO: positions are always interpolated with the offset. */
export function configOfV1(golden: Golden): VitConfig {
  return common(golden, "");
}

export function configOfV2(golden: Golden): VitConfig {
  const { config } = golden;
  const ffn = oneOf(config, "ffn_layer", ["mlp", "swiglu", "swiglufused"], "mlp");
  return {
    ...common(golden, "register_tokens"),
    ffn: ffn === "mlp" ? "mlp" : "swiglu",
    interpolateOffset: numberOf({ interpolate_offset: 0.1, ...config }, "interpolate_offset"),
    interpolateAntialias: config.interpolate_antialias === true,
  };
}

export function configOfV3(golden: Golden): VitConfig {
  const { config } = golden;
  const swiglu = ["swiglu", "swiglu32", "swiglu64", "swiglu128"] as const;
  const ffn = oneOf(config, "ffn_layer", ["mlp", ...swiglu], "mlp");
  const norms = ["layernorm", "layernormbf16", "rmsnorm"] as const;
  const rms = oneOf(config, "norm_layer", norms, "layernorm") === "rmsnorm";
  if (rms === golden.has("params.norm.bias")) {
    throw new RangeError(`config.norm_layer is ${config.norm_layer}, but norms say otherwise`);
  }
  return {
    ...common(golden, "storage_tokens"),
    ffn: ffn === "mlp" ? "mlp" : "swiglu",
    maskKeyBias: config.mask_k_bias === true,
    // The official default is bf16; its rope layer alone has float32.
    rope: ropeOf({ dtype: "bf16", ...prefixed(config, "pos_embed_rope_") }),
  };
}

/** Rotary positions of the official constructor's arguments. */
export function ropeOf(config: Config): RopeSpec {
  const optional = (key: string, fallback: number | null = null): number | null =>
    config[key] === undefined ? fallback : (config[key] as number | null);
  const [shift, jitter, rescale] = rates.map((key) => optional(`${key}_coords`));
  return {
    base: optional("base", 100),
    minPeriod: optional("min_period"),
    maxPeriod: optional("max_period"),
    normalize: oneOf(config, "normalize_coords", ["separate", "max", "min"], "separate"),
    shift: shift ?? null,
    jitter: jitter ?? null,
    rescale: rescale ?? null,
    dtype: oneOf(config, "dtype", ["fp32", "bf16"], "fp32"),
  };
}

/** The entries whose keys begin with the prefix, without it. */
function prefixed(config: Config, prefix: string): Config {
  const entries = Object.entries(config).filter(([key]) => key.startsWith(prefix));
  return Object.fromEntries(entries.map(([key, value]) => [key.slice(prefix.length), value]));
}
