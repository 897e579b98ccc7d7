/** Which parameter learns at which rate and is decayed: the layout's multipliers against the official groups. */
import {
  type Layout,
  layoutOf,
  type Parameter,
  parseRunSpec,
  type RunSpec,
} from "@paddock/contract";
import { learningRateOf, weightDecayOf } from "@paddock/model";
import { asDouble, type Check, exactly } from "../check.js";
import { onlyKnown } from "../config.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

interface DinoGroups {
  readonly regularized: string[];
  readonly not_regularized: string[];
  readonly frozen: string[];
  readonly group1_weight_decay: number;
}

/** DINO's get_params_groups: decayed, not decayed, and what is not trained at all. */
export const dinoParameterGroups: Kind = {
  name: "dino-parameter-groups",
  matches: (golden) => golden.family === "dinov1" && golden.metadata("groups") !== null,
  run(golden, check) {
    const groups = golden.metadata<Record<string, DinoGroups>>("groups");
    const counts: number[] = [];
    for (const [variant, official] of Object.entries(groups)) {
      const layout = layoutOf(dinoSpec(golden, isFixed(variant)));
      const ours = dinoGroups(layout);
      check.equal(variant, ours, official);
      counts.push(ours.regularized.length, ours.not_regularized.length, ours.frozen.length);
    }
    check.tensor("outputs.counts", counts, exactly);
  },
};

/** Whether the prototypes' magnitudes are fixed, of "norm_last_layer=True". */
function isFixed(variant: string): boolean {
  const [, value] = /^norm_last_layer=(True|False)$/.exec(variant) ?? [];
  if (!value) throw new RangeError(`expected norm_last_layer=True or False, received ${variant}`);
  return value === "True";
}

function dinoSpec({ config }: Golden, freezeMagnitude: boolean): RunSpec {
  onlyKnown("config", config, [...sizes, ...biases, "head_nlayers", "head_use_bn"]);
  return parseRunSpec({
    steps: 1,
    batchPerRank: 2,
    data: { path: "unused" },
    model: {
      width: config.embed,
      depth: config.depth,
      heads: config.heads ?? 1,
      layerScale: 0,
      qkvBias: config.qkv_bias ?? true,
    },
    heads: {
      dino: {
        layers: Math.max(1, config.head_nlayers),
        batchNorm: config.head_use_bn,
        freezeMagnitude,
      },
    },
    optimizer: { decay: "matrices", layerDecay: 1, patchEmbedMultiplier: 1 },
  });
}

function dinoGroups(layout: Layout): DinoGroups {
  // DINO masks nothing: it has no mask token.
  const parameters = parametersOf(layout).filter(({ name }) => name !== "backbone.mask_token");
  const named = (where: (parameter: Parameter) => boolean): string[] =>
    parameters.filter(where).map(({ name }) => name.replace(/^dino_head\./, "head."));
  const isDecayed = (p: Parameter): boolean => weightDecayOf(p, scalars) !== 0;
  return {
    regularized: named((p) => p.trainable && isDecayed(p)),
    not_regularized: named((p) => p.trainable && !isDecayed(p)),
    frozen: named((p) => !p.trainable),
    group1_weight_decay: 0,
  };
}

/** get_params_groups_with_decay and fuse_params_groups of DINOv2 and DINOv3. */
export const parameterGroups: Kind = {
  name: "parameter-groups",
  matches: (golden) =>
    (golden.family === "dinov2" || golden.family === "dinov3") &&
    golden.names().some((name) => /^outputs\.\w+\.lr_multiplier$/.test(name)),
  run(golden, check) {
    const names = golden.metadata<Record<string, string[]>>("names");
    const spec = golden.family === "dinov2" ? specOfV2(golden) : specOfV3(golden);
    const layout = layoutOf(withHeads(spec, names));
    const parameters = new Map(parametersOf(layout).map((p) => [p.name, p]));
    const seen = new Set<string>();
    for (const [submodule, official] of Object.entries(names)) {
      // `dict` is one call for all submodules, whose names it carries.
      const prefix = submodule === "dict" ? "" : `${submodule}.`;
      const ours = official.map((name) => {
        const parameter = parameters.get(ourName(prefix + name));
        if (!parameter) throw new RangeError(`no parameter for ${prefix}${name}`);
        seen.add(parameter.name);
        return parameter;
      });
      checkGroups(golden, check, submodule, ours);
    }
    check.equal("parameters", [...parameters.keys()].sort(), [...seen].sort());
  },
};

/** Multipliers show as what they make of rates and a decay of 1. */
const scalars = {
  learningRate: 1,
  lastLayerLearningRate: 1,
  weightDecay: 1,
  momentum: 1,
  teacherTemperature: 1,
  localWeight: 1,
  gramWeight: 1,
};

function checkGroups(
  golden: Golden,
  check: Check,
  submodule: string,
  parameters: readonly Parameter[],
): void {
  const at = (name: string): string => `outputs.${submodule}.${name}`;
  const frozen = { ...scalars, lastLayerLearningRate: 0 };
  const lr = parameters.map((p) => learningRateOf(p, scalars));
  const isLast = parameters.map((p) => (learningRateOf(p, frozen) === 0 ? 1 : 0));
  const wd = parameters.map((p) => weightDecayOf(p, scalars) * headDecay(golden, submodule, p));
  check.tensor(at("lr_multiplier"), lr, asDouble);
  check.tensor(at("wd_multiplier"), wd, asDouble);
  check.tensor(at("is_last_layer"), isLast, exactly);
  if (!golden.has(at("fused_sizes"))) return;
  const groups = new Map<string, { key: number[]; size: number }>();
  for (let i = 0; i < parameters.length; i++) {
    const key = [lr[i], wd[i], isLast[i]] as number[];
    const group = groups.get(key.join(" ")) ?? { key, size: 0 };
    groups.set(key.join(" "), { key, size: group.size + 1 });
  }
  const fused = [...groups.values()];
  check.tensor(
    at("fused_sizes"),
    fused.map(({ size }) => size),
    exactly,
  );
  check.tensor(
    at("fused_lr_wd_last"),
    fused.flatMap(({ key }) => key),
    asDouble,
  );
}

/** DINOv3's dino_head_wd_multiplier finds names only in a call for all submodules, which training never makes. */
function headDecay({ config }: Golden, submodule: string, { name }: Parameter): number {
  return submodule === "dict" && name.startsWith("dino_head.")
    ? (config.dino_head_wd_multiplier ?? 1)
    : 1;
}

/** Our name of an official parameter: no block chunks, storage tokens are registers, DINOv3's w1 and w2 are halves of w12. */
function ourName(name: string): string {
  return name
    .replace(/\bblocks\.\d+\.(\d+)\./, "blocks.$1.")
    .replace("storage_tokens", "register_tokens")
    .replace(/\.mlp\.w[12]\./, ".mlp.w12.");
}

const sizes = ["embed", "depth", "heads", "patch", "img", "mlp_ratio", "ffn_ratio", "ffn_layer"];
const biases = ["qkv_bias", "proj_bias", "ffn_bias"];

function specOfV2({ config }: Golden): RunSpec {
  const tokens = ["registers", "layerscale", "block_chunks"];
  onlyKnown("config", config, [
    ...sizes,
    ...biases,
    ...tokens,
    "layerwise_decay",
    "patch_embed_lr_mult",
  ]);
  return specOf(config, {
    registers: config.registers ?? 0,
    layerScale: config.layerscale ?? 0,
    layerDecay: config.layerwise_decay,
  });
}

function specOfV3({ config }: Golden): RunSpec {
  const own = ["n_storage_tokens", "layerscale_init", "mask_k_bias", "norm_layer"];
  const norms = ["untie_cls_and_patch_norms", "untie_global_and_local_cls_norm"];
  const optimizer = ["lr_decay_rate", "patch_embed_lr_mult", "dino_head_wd_multiplier"];
  onlyKnown("config", config, [...sizes, ...biases, ...own, ...norms, ...optimizer]);
  const spec = specOf(config, {
    registers: config.n_storage_tokens ?? 0,
    layerScale: config.layerscale_init ?? 0,
    layerDecay: config.lr_decay_rate,
  });
  return {
    ...spec,
    model: {
      ...spec.model,
      positions: "rope",
      norm: normOf(config.norm_layer ?? "layernorm"),
      maskKeyBias: config.mask_k_bias ?? false,
      untieClsNorm: config.untie_cls_and_patch_norms ?? false,
      untieLocalClsNorm: config.untie_global_and_local_cls_norm ?? false,
    },
  };
}

function specOf(
  config: Golden["config"],
  o: { registers: number; layerScale: number; layerDecay: number },
): RunSpec {
  return parseRunSpec({
    steps: 1,
    batchPerRank: 2,
    data: { path: "unused" },
    model: {
      width: config.embed,
      depth: config.depth,
      heads: config.heads,
      patchSize: config.patch,
      mlpRatio: config.mlp_ratio ?? config.ffn_ratio ?? 4,
      registers: o.registers,
      layerScale: o.layerScale,
      ffn: ffnOf(config.ffn_layer),
      qkvBias: config.qkv_bias ?? true,
      projBias: config.proj_bias ?? true,
      ffnBias: config.ffn_bias ?? true,
    },
    crops: {
      global: { size: config.img, scale: [0.3, 1] },
      local: { size: config.patch, scale: [0.1, 0.3] },
    },
    optimizer: { layerDecay: o.layerDecay, patchEmbedMultiplier: config.patch_embed_lr_mult },
  });
}

function ffnOf(layer: string): "mlp" | "swiglu" {
  if (layer === "mlp") return "mlp";
  if (layer.startsWith("swiglu")) return "swiglu";
  throw new RangeError(`expected mlp or swiglu, received ${layer}`);
}

function normOf(layer: string): "layernorm" | "rmsnorm" {
  if (layer === "rmsnorm") return "rmsnorm";
  if (layer === "layernorm" || layer === "layernormbf16") return "layernorm";
  throw new RangeError(`expected layernorm, layernormbf16 or rmsnorm, received ${layer}`);
}

/** The heads whose names are listed. */
function withHeads(spec: RunSpec, names: Record<string, readonly string[]>): RunSpec {
  const headOf = (name: string): RunSpec["heads"]["dino"] | null => {
    const dictionary = (names["dict"] ?? []).filter((entry) => entry.startsWith(`${name}.`));
    const own = names[name] ?? dictionary.map((entry) => entry.slice(name.length + 1));
    if (own.length === 0) return null;
    const layers = own.filter((entry) => /^mlp\.(\d+\.)?weight$/.test(entry)).length;
    return { ...spec.heads.dino, layers, weightNorm: own.includes("last_layer.weight_g") };
  };
  return {
    ...spec,
    heads: { dino: headOf("dino_head") ?? spec.heads.dino, ibot: headOf("ibot_head") },
  };
}

function parametersOf(layout: Layout): Parameter[] {
  return layout.units.flatMap(({ parameters }) => parameters);
}
