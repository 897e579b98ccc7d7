/**
 * The flat layout of a model: which parameter lies where in which unit. Pure: the coordinator plans with it, the worker
 * shards with it, the model names its tensors by it. Parameter names are the official DINOv2 state-dict names behind
 * `backbone.`, `dino_head.`, `ibot_head.`; a linear weight is [out, in]; the patch embedding is [D, C * p * p].
 */
import { chunkElements } from "../shards.js";
import { ffnHidden, type HeadSpec, sizeOfModel } from "../spec/model.js";
import type { RunSpec } from "../spec/run.js";
import { type NormGroup, needsTensorNorms, normGroupsOf } from "./norms.js";
import type { Parameter, Submodule, Unit } from "./unit.js";

export interface Layout {
  readonly units: readonly Unit[];
  /** Number of trainable values, without padding. */
  readonly parameters: number;
  /** The sums that a step needs before it can be applied. */
  readonly normGroups: readonly NormGroup[];
}

function alignmentOf({ optimizer }: LayoutSpec): number {
  return needsTensorNorms(optimizer) ? chunkElements : 16;
}

type Shape = readonly number[];
type Entry = readonly [name: string, shape: Shape];

type LayoutSpec = Pick<RunSpec, "model" | "heads" | "crops" | "optimizer">;

/** The layout of a run's student; the teacher's is the same. */
export function layoutOf(spec: LayoutSpec): Layout {
  const { depth } = sizeOfModel(spec.model);
  const rate = spec.optimizer.layerDecay;
  const decayed = (id: number): number => rate ** (depth + 1 - id);
  const units: Unit[] = [
    makeUnit(spec, "embed", "backbone", embedEntries(spec), (name) =>
      name.includes("patch_embed") ? decayed(0) * spec.optimizer.patchEmbedMultiplier : decayed(0),
    ),
  ];
  for (let i = 0; i < depth; i++) {
    units.push(
      makeUnit(spec, `block.${i}`, "backbone", blockEntries(spec.model, i), () => decayed(i + 1)),
    );
  }
  units.push(makeUnit(spec, "norm", "backbone", finalNorms(spec.model), () => 1));
  for (const name of ["dino", "ibot"] as const) {
    const head = spec.heads[name];
    const unit = `${name}_head` as const;
    if (head) units.push(makeUnit(spec, unit, unit, headEntries(head, spec.model), () => 1));
  }
  let parameters = 0;
  for (const unit of units) for (const p of unit.parameters) parameters += p.elements;
  return { units, parameters, normGroups: normGroupsOf(units, spec.optimizer) };
}

/** The final norm, and those of its own for cls tokens. */
function finalNorms(model: RunSpec["model"]): Entry[] {
  const names = ["norm"];
  if (model.untieClsNorm) names.push("cls_norm");
  if (model.untieLocalClsNorm) names.push("local_cls_norm");
  return names.flatMap((name) => norm(name, model));
}

/** Side of the position-encoding grid, in patches: that of a global crop. */
export function gridSide(spec: Pick<RunSpec, "model" | "crops">): number {
  return spec.crops.global.size / spec.model.patchSize;
}

function embedEntries(spec: Pick<RunSpec, "model" | "crops">): Entry[] {
  const { width } = sizeOfModel(spec.model);
  const { channels, patchSize, registers, positions } = spec.model;
  const learned: Entry[] =
    positions === "learned" ? [["pos_embed", [1, gridSide(spec) ** 2 + 1, width]]] : [];
  const entries: Entry[] = [
    ["cls_token", [1, 1, width]],
    ...learned,
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

function norm(name: string, model: RunSpec["model"]): Entry[] {
  const { width } = sizeOfModel(model);
  const weight: Entry = [`${name}.weight`, [width]];
  return model.norm === "rmsnorm" ? [weight] : [weight, [`${name}.bias`, [width]]];
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
    ...norm("norm1", model),
    ...linear("attn.qkv", 3 * width, width, model.qkvBias),
    ...linear("attn.proj", width, width, model.projBias),
    ...scale("ls1"),
    ...norm("norm2", model),
    ...feedForward,
    ...scale("ls2"),
  ];
  return entries.map(([name, shape]) => [`blocks.${index}.${name}`, shape]);
}

function headEntries(head: HeadSpec, model: RunSpec["model"]): Entry[] {
  const { prototypes, bottleneck } = head;
  const lastLayer: Entry[] = head.weightNorm
    ? [
        ["last_layer.weight_g", [prototypes, 1]],
        ["last_layer.weight_v", [prototypes, bottleneck]],
      ]
    : [["last_layer.weight", [prototypes, bottleneck]]];
  return [...mlpEntries(head, sizeOfModel(model).width), ...lastLayer];
}

function mlpEntries(head: HeadSpec, width: number): Entry[] {
  if (head.layers === 1) return linear("mlp", head.bottleneck, width, true);
  // The official Sequential interleaves GELUs (mlp.0, mlp.2, mlp.4), and batch norms before them (mlp.0, mlp.3, mlp.6).
  const stride = head.batchNorm ? 3 : 2;
  const hidden = Array.from({ length: head.layers - 1 }, (_, i): Entry[] => [
    ...linear(`mlp.${stride * i}`, head.hidden, i === 0 ? width : head.hidden, true),
    ...(head.batchNorm ? batchNorm(`mlp.${stride * i + 1}`, head.hidden) : []),
  ]);
  const last = linear(`mlp.${stride * (head.layers - 1)}`, head.bottleneck, head.hidden, true);
  return [...hidden.flat(), ...last];
}

function batchNorm(name: string, width: number): Entry[] {
  return [
    [`${name}.weight`, [width]],
    [`${name}.bias`, [width]],
  ];
}

/**
 * names: no decay iff the name ends in ".bias" or contains "norm" or "gamma"; tokens and weight_g are decayed
 * (dinov2/utils/param_groups.py). matrices: no decay iff it is a bias or has one axis (DINO's utils.py).
 */
function isDecayed(rule: "names" | "matrices", name: string, shape: Shape): boolean {
  if (name.endsWith(".bias")) return false;
  if (rule === "matrices") return shape.length > 1;
  return !(name.includes("norm") || name.includes("gamma"));
}

function makeUnit(
  spec: LayoutSpec,
  name: string,
  submodule: Submodule,
  entries: readonly Entry[],
  lrMultiplierOf: (name: string) => number,
): Unit {
  const parameters: Parameter[] = [];
  const alignment = alignmentOf(spec);
  let offset = 0;
  for (const [local, shape] of entries) {
    const elements = shape.reduce((product, side) => product * side, 1);
    parameters.push({
      name: `${submodule}.${local}`,
      shape,
      offset,
      elements,
      lrMultiplier: lrMultiplierOf(local),
      wdMultiplier: isDecayed(spec.optimizer.decay, local, shape) ? 1 : 0,
      trainable: !(local === "last_layer.weight_g" && freezesMagnitude(spec, submodule)),
      isLastLayer: local.startsWith("last_layer"),
    });
    offset += Math.ceil(elements / alignment) * alignment;
  }
  return { name, submodule, parameters, elements: offset };
}

function freezesMagnitude({ heads }: LayoutSpec, submodule: Submodule): boolean {
  if (submodule === "backbone") return false;
  const head = submodule === "dino_head" ? heads.dino : heads.ibot;
  return head?.freezeMagnitude ?? false;
}
