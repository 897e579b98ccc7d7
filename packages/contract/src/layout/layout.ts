/**
 * The flat layout of a model: which parameter lies where in which unit. Pure: the coordinator plans with it, the worker
 * shards with it, the model names its tensors by it. Parameter names are the official DINOv2 state-dict names behind
 * `backbone.`, `dino_head.`, `ibot_head.`; a linear weight is [out, in]; the patch embedding is [D, C * p * p].
 */
import { ffnHidden, type HeadSpec, sizeOfModel } from "../spec/model.js";
import type { RunSpec } from "../spec/run.js";

/** Gradient clipping and its norms are per submodule. */
export type Submodule = "backbone" | "dino_head" | "ibot_head";

export interface Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** First element in the unit's flat vector; a multiple of 16 (64 bytes), so that views are aligned alike everywhere. */
  readonly offset: number;
  readonly elements: number;
  /** Factor on the learning rate (layer decay, patch embedding). */
  readonly lrMultiplier: number;
  /** Factor on the weight decay: 0 or 1. */
  readonly wdMultiplier: number;
  /** The prototypes: their learning rate is 0 while the last layer is frozen. */
  readonly isLastLayer: boolean;
}

/** The granule of gathering and freeing. */
export interface Unit {
  /** "embed", "block.0" ..., "norm", "dino_head", "ibot_head". */
  readonly name: string;
  readonly submodule: Submodule;
  readonly parameters: readonly Parameter[];
  /** Elements of the flat vector, padding included. Padding is zero and stays zero. */
  readonly elements: number;
}

export interface Layout {
  readonly units: readonly Unit[];
  /** Number of trainable values, without padding. */
  readonly parameters: number;
}

const alignment = 16;

type Shape = readonly number[];
type Entry = readonly [name: string, shape: Shape];

/** The layout of a run's student; the teacher's is the same. */
export function layoutOf(spec: Pick<RunSpec, "model" | "heads" | "crops" | "optimizer">): Layout {
  const { width, depth } = sizeOfModel(spec.model);
  const rate = spec.optimizer.layerDecay;
  const decayed = (id: number): number => rate ** (depth + 1 - id);
  const units: Unit[] = [
    makeUnit("embed", "backbone", embedEntries(spec), (name) =>
      name.includes("patch_embed") ? decayed(0) * spec.optimizer.patchEmbedMultiplier : decayed(0),
    ),
  ];
  for (let i = 0; i < depth; i++) {
    units.push(
      makeUnit(`block.${i}`, "backbone", blockEntries(spec.model, i), () => decayed(i + 1)),
    );
  }
  units.push(
    makeUnit(
      "norm",
      "backbone",
      [
        ["norm.weight", [width]],
        ["norm.bias", [width]],
      ],
      () => 1,
    ),
  );
  units.push(makeUnit("dino_head", "dino_head", headEntries(spec.heads.dino, width), () => 1));
  if (spec.heads.ibot) {
    units.push(makeUnit("ibot_head", "ibot_head", headEntries(spec.heads.ibot, width), () => 1));
  }
  let parameters = 0;
  for (const unit of units) for (const p of unit.parameters) parameters += p.elements;
  return { units, parameters };
}

/** Side of the position-encoding grid, in patches: that of a global crop. */
export function gridSide(spec: Pick<RunSpec, "model" | "crops">): number {
  return spec.crops.global.size / spec.model.patchSize;
}

function embedEntries(spec: Pick<RunSpec, "model" | "crops">): Entry[] {
  const { width } = sizeOfModel(spec.model);
  const { channels, patchSize, registers } = spec.model;
  const entries: Entry[] = [
    ["cls_token", [1, 1, width]],
    ["pos_embed", [1, gridSide(spec) ** 2 + 1, width]],
    ["mask_token", [1, width]],
    ["patch_embed.proj.weight", [width, channels * patchSize * patchSize]],
    ["patch_embed.proj.bias", [width]],
  ];
  if (registers > 0) entries.push(["register_tokens", [1, registers, width]]);
  return entries;
}

function linear(name: string, out: number, into: number, bias: boolean): Entry[] {
  const weight: Entry = [`${name}.weight`, [out, into]];
  return bias ? [weight, [`${name}.bias`, [out]]] : [weight];
}

function norm(name: string, width: number): Entry[] {
  return [
    [`${name}.weight`, [width]],
    [`${name}.bias`, [width]],
  ];
}

function blockEntries(model: RunSpec["model"], index: number): Entry[] {
  const { width } = sizeOfModel(model);
  const hidden = ffnHidden(model);
  const scale = (name: string): Entry[] =>
    model.layerScale > 0 ? [[`${name}.gamma`, [width]]] : [];
  const feedForward: Entry[] =
    model.ffn === "mlp"
      ? [
          ...linear("mlp.fc1", hidden, width, model.ffnBias),
          ...linear("mlp.fc2", width, hidden, model.ffnBias),
        ]
      : [
          ...linear("mlp.w12", 2 * hidden, width, model.ffnBias),
          ...linear("mlp.w3", width, hidden, model.ffnBias),
        ];
  const entries: Entry[] = [
    ...norm("norm1", width),
    ...linear("attn.qkv", 3 * width, width, model.qkvBias),
    ...linear("attn.proj", width, width, model.projBias),
    ...scale("ls1"),
    ...norm("norm2", width),
    ...feedForward,
    ...scale("ls2"),
  ];
  return entries.map(([name, shape]) => [`blocks.${index}.${name}`, shape]);
}

function headEntries(head: HeadSpec, width: number): Entry[] {
  const entries: Entry[] = [];
  if (head.layers === 1) {
    entries.push(...linear("mlp", head.bottleneck, width, true));
  } else {
    for (let i = 0; i < head.layers; i++) {
      const into = i === 0 ? width : head.hidden;
      const out = i === head.layers - 1 ? head.bottleneck : head.hidden;
      // The official Sequential interleaves GELUs: mlp.0, mlp.2, mlp.4.
      entries.push(...linear(`mlp.${2 * i}`, out, into, true));
    }
  }
  entries.push(["last_layer.weight_g", [head.prototypes, 1]]);
  entries.push(["last_layer.weight_v", [head.prototypes, head.bottleneck]]);
  return entries;
}

/** No decay iff the name ends in ".bias" or contains "norm" or "gamma"; tokens and weight_g are decayed (dinov2/utils/param_groups.py). */
function isDecayed(name: string): boolean {
  return !(name.endsWith(".bias") || name.includes("norm") || name.includes("gamma"));
}

function makeUnit(
  name: string,
  submodule: Submodule,
  entries: readonly Entry[],
  lrMultiplierOf: (name: string) => number,
): Unit {
  const parameters: Parameter[] = [];
  let offset = 0;
  for (const [local, shape] of entries) {
    const elements = shape.reduce((product, side) => product * side, 1);
    parameters.push({
      name: `${submodule}.${local}`,
      shape,
      offset,
      elements,
      lrMultiplier: lrMultiplierOf(local),
      wdMultiplier: isDecayed(local) ? 1 : 0,
      isLastLayer: local.startsWith("last_layer"),
    });
    offset += Math.ceil(elements / alignment) * alignment;
  }
  return { name, submodule, parameters, elements: offset };
}
