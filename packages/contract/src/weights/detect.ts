/** What a file of weights is: whose names it uses and what backbone it holds, read off names and shapes alone. */
import { PaddockError } from "../errors.js";
import { type DialectName, dialectNamed } from "./dialects.js";
import type { BackboneShape } from "./shape.js";

export interface Detected {
  readonly dialect: DialectName;
  readonly shape: BackboneShape;
  /** Heads show in no shape: whether their number was told, follows from stored rotary periods, or is the width over 64. */
  readonly headsFrom: "config" | "periods" | "head width 64";
  /** Actual names of the backbone's tensors by canonical ones: without a prefix, and without chunks of blocks. */
  readonly names: ReadonlyMap<string, string>;
  /** Tensors of other parts (heads, classifiers), which are left out. */
  readonly leftOut: readonly string[];
}

export type Shapes = ReadonlyMap<string, readonly number[]>;

const patchNames = [
  "patch_embed.proj.weight",
  "embeddings.patch_embeddings.projection.weight",
  "embeddings.patch_embeddings.weight",
];

const otherParts = /(^|\.)(dino_head|ibot_head|head|head_dist|classifier|fc_norm)\./;

/**
 * `tensors`: the shape of each tensor of the file. `heads`: their number, if a configuration says it. Throws `invalid-argument` with what
 * was expected and received when it is no such backbone.
 */
export function detectWeights(tensors: Shapes, heads?: number): Detected {
  const { names, leftOut } = canonicalNames(tensors);
  const shapes = new Map([...names].map(([name, actual]) => [name, tensors.get(actual) ?? []]));
  const dialect = dialectOf(shapes);
  const facts = factsOf(shapes, dialect);
  const periods = shapes.get("rope_embed.periods")?.[0];
  const fromPeriods = periods === undefined ? undefined : facts.width / (4 * periods);
  const known = heads ?? fromPeriods;
  const headsFrom =
    heads !== undefined ? "config" : fromPeriods !== undefined ? "periods" : "head width 64";
  const shape = { ...facts, heads: known ?? Math.max(1, Math.round(facts.width / 64)) };
  return { dialect, shape, headsFrom, names, leftOut };
}

/** Whose names a file with these tensors uses: "official DINOv2". */
export function titleOf(detected: Detected): string {
  return detected.dialect === "timm-vit" && isAlsoOfficial(detected.shape)
    ? "official DINO or timm VisionTransformer (the same names)"
    : dialectNamed(detected.dialect).title;
}

function isAlsoOfficial(shape: BackboneShape): boolean {
  return shape.registers === 0 && !shape.layerScale && shape.ffn === "mlp";
}

function canonicalNames(tensors: Shapes): { names: Map<string, string>; leftOut: string[] } {
  const prefix = backbonePrefix([...tensors.keys()]);
  const names = new Map<string, string>();
  const leftOut: string[] = [];
  for (const actual of tensors.keys()) {
    if (!actual.startsWith(prefix) || otherParts.test(actual)) {
      leftOut.push(actual);
      continue;
    }
    const name = actual.slice(prefix.length).replace(/^blocks\.\d+\.(\d+\.)/, "blocks.$1");
    const other = names.get(name);
    if (other !== undefined) throw unknown(`one tensor ${name}`, `${other} and ${actual}`);
    names.set(name, actual);
  }
  const foreign = leftOut.filter((name) => !otherParts.test(name));
  if (foreign.length > 0) {
    throw unknown(`one backbone under "${prefix}"`, `also ${someOf(foreign)}`);
  }
  return { names, leftOut };
}

/** What stands before the backbone's names: "", "backbone.", "teacher.backbone.", "vit." ... */
function backbonePrefix(names: readonly string[]): string {
  const found = names.flatMap((name) => {
    const end = patchNames.find((known) => name === known || name.endsWith(`.${known}`));
    return end === undefined ? [] : [name.slice(0, name.length - end.length)];
  });
  const [prefix] = found;
  if (prefix === undefined) {
    throw unknown(
      `a patch embedding (${patchNames.join(", ")})`,
      names.length === 0 ? "no tensors" : someOf(names),
    );
  }
  if (found.length > 1) {
    throw unknown(
      "one backbone",
      `several, under ${found.map((x) => `"${x}"`).join(", ")}; keep the tensors of one in the file`,
    );
  }
  return prefix;
}

/** By what only they have. */
function dialectOf(shapes: Shapes): DialectName {
  const has = (name: string): boolean => shapes.has(name);
  if (has("embeddings.patch_embeddings.weight")) return "transformers-dinov3";
  if (has("embeddings.patch_embeddings.projection.weight")) {
    if (has("encoder.layer.0.layernorm_before.weight")) return "transformers-vit";
    return has("embeddings.register_tokens")
      ? "transformers-dinov2-registers"
      : "transformers-dinov2";
  }
  return plainNames(has);
}

/** The official names, and timm's, which are much alike. */
function plainNames(has: (name: string) => boolean): DialectName {
  if (!has("pos_embed")) {
    const eva = ["blocks.0.gamma_1", "blocks.0.attn.q_bias", "blocks.0.mlp.fc1_g.weight"];
    return eva.some(has) || has("reg_token") ? "timm-eva" : "dinov3";
  }
  const second = ["mask_token", "register_tokens", "blocks.0.mlp.w12.weight"];
  return second.some(has) ? "dinov2" : "timm-vit";
}

interface Reader {
  /** Side `axis` of the first of these tensors that there is; undefined when there is none. */
  side(axis: number, ...names: string[]): number | undefined;
  has(...names: string[]): boolean;
  /** Prefix of the first block's names. */
  readonly block: string;
}

function readerOf(shapes: Shapes): Reader {
  const block =
    ["blocks.0.", "encoder.layer.0.", "layer.0."].find((prefix) =>
      [...shapes.keys()].some((name) => name.startsWith(prefix)),
    ) ?? "blocks.0.";
  return {
    block,
    has: (...names) => names.some((name) => shapes.has(name)),
    side: (axis, ...names) => {
      const name = names.find((candidate) => shapes.has(candidate));
      return name === undefined ? undefined : shapes.get(name)?.[axis];
    },
  };
}

function factsOf(shapes: Shapes, dialect: DialectName): Omit<BackboneShape, "heads"> {
  const read = readerOf(shapes);
  const patch = shapes.get(patchNames.find((name) => shapes.has(name)) ?? "") ?? [];
  const [width, channels, patchSize, across] = patch;
  if (!width || !channels || !patchSize || patchSize !== across) {
    throw unknown("a patch embedding [D, C, p, p]", `[${patch.join(", ")}]`);
  }
  const registers =
    read.side(1, "register_tokens", "storage_tokens", "reg_token", "embeddings.register_tokens") ??
    0;
  return {
    width,
    channels,
    patchSize,
    depth: depthOf(shapes, read.block),
    registers,
    ...positionsOf(read, dialect, registers),
    ...feedForwardOf(read),
    ...attentionOf(read),
    norm: read.has(`${read.block}norm1.bias`, `${read.block}layernorm_before.bias`)
      ? "layernorm"
      : "rmsnorm",
    layerScale: has(read, "ls1.gamma", "gamma_1", "layer_scale1.lambda1"),
    untieClsNorm: read.has("cls_norm.weight"),
    untieLocalClsNorm: read.has("local_cls_norm.weight"),
  };
}

/** Whether the first block has one of these. */
function has(read: Reader, ...names: string[]): boolean {
  return read.has(...names.map((name) => read.block + name));
}

function depthOf(shapes: Shapes, block: string): number {
  const stem = block.slice(0, -"0.".length);
  const indexes = new Set<number>();
  for (const name of shapes.keys()) {
    if (name.startsWith(stem)) indexes.add(Number.parseInt(name.slice(stem.length), 10));
  }
  const depth = indexes.size;
  if (depth === 0) throw unknown("blocks", "none");
  const missing = Array.from({ length: depth }, (_, i) => i).filter((i) => !indexes.has(i));
  if (missing.length > 0)
    throw unknown(`blocks 0 to ${depth - 1}`, `none of ${missing.join(", ")}`);
  return depth;
}

function positionsOf(
  read: Reader,
  dialect: DialectName,
  registers: number,
): Pick<BackboneShape, "positions" | "gridSide"> {
  const rows = read.side(1, "pos_embed", "embeddings.position_embeddings");
  if (rows === undefined) return { positions: "rope", gridSide: 0 };
  const patches = dialect === "timm-vit" && registers > 0 ? rows : rows - 1;
  const side = Math.round(Math.sqrt(patches));
  if (side < 1 || side ** 2 !== patches) {
    throw unknown("positions of cls and a square grid of patches", `${rows} positions`);
  }
  return { positions: "learned", gridSide: side };
}

function feedForwardOf(read: Reader): Pick<BackboneShape, "ffn" | "hidden" | "ffnBias"> {
  const named = (...names: string[]): string[] => names.map((name) => read.block + name);
  const packed = ["mlp.w12", "mlp.weights_in"];
  const split = ["mlp.w1", "mlp.fc1_g", "mlp.gate_proj"];
  const plain = ["mlp.fc1", "mlp.up_proj", "intermediate.dense"];
  const weights = (names: string[]): string[] => named(...names.map((name) => `${name}.weight`));
  const ffnBias = has(read, ...[...packed, ...split, ...plain].map((name) => `${name}.bias`));
  const both = read.side(0, ...weights(packed));
  if (both !== undefined) return { ffn: "swiglu", hidden: both / 2, ffnBias };
  const half = read.side(0, ...weights(split));
  if (half !== undefined) return { ffn: "swiglu", hidden: half, ffnBias };
  const out = read.side(0, ...weights(plain));
  if (out === undefined) throw unknown("a feed-forward layer", "none in the first block");
  // timm gives SwiGLU's fused layer the MLP's name: only its second layer's input tells them apart.
  const back = read.side(1, ...weights(["mlp.fc2", "mlp.down_proj", "output.dense"]));
  return back !== undefined && out === 2 * back
    ? { ffn: "swiglu", hidden: back, ffnBias }
    : { ffn: "mlp", hidden: out, ffnBias };
}

function attentionOf(read: Reader): Pick<BackboneShape, "qkvBias" | "projBias" | "maskKeyBias"> {
  const qkvBias = has(
    read,
    "attn.qkv.bias",
    "attn.q_bias",
    "attention.attention.query.bias",
    "attention.q_proj.bias",
  );
  const keysHaveNone =
    has(read, "attn.q_bias", "attn.qkv.bias_mask") ||
    (has(read, "attention.q_proj.bias") && !has(read, "attention.k_proj.bias"));
  return {
    qkvBias,
    maskKeyBias: qkvBias && keysHaveNone,
    projBias: has(read, "attn.proj.bias", "attention.output.dense.bias", "attention.o_proj.bias"),
  };
}

function someOf(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(", ");
  return names.length > 3 ? `${shown} and ${names.length - 3} more` : shown;
}

function unknown(expected: string, received: string): PaddockError {
  return new PaddockError(
    "invalid-argument",
    `weights of a DINO, DINOv2 or DINOv3 backbone: expected ${expected}, received ${received}`,
  );
}
