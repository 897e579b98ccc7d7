/** The names that a backbone's weights go by, which of them fits which backbone, and what each cannot say. */
import { type OfficialVersion, officialTensors } from "./official.js";
import type { BackboneOptions, BackboneShape } from "./shape.js";
import type { ForeignTensor } from "./tensor.js";
import { timmEvaTensors, timmVitTensors } from "./timm.js";
import { dinov2Tensors, dinov3Tensors, vitTensors } from "./transformers.js";

export const weightFormats = ["official", "transformers", "timm"] as const;
export type WeightFormat = (typeof weightFormats)[number];

export type DialectName =
  | "dino"
  | "dinov2"
  | "dinov3"
  | "transformers-vit"
  | "transformers-dinov2"
  | "transformers-dinov2-registers"
  | "transformers-dinov3"
  | "timm-vit"
  | "timm-eva";

export interface Dialect {
  readonly name: DialectName;
  readonly format: WeightFormat;
  /** In words: "official DINOv2". */
  readonly title: string;
  /** All tensors of such a file, in the order in which they are written. */
  tensors(shape: BackboneShape): ForeignTensor[];
  /** What of this backbone it cannot say: field, expected, received. Empty when it can. */
  problems(shape: BackboneShape, options: BackboneOptions): string[];
}

type Rule = readonly [holds: boolean, problem: string];

const broken = (rules: readonly Rule[]): string[] =>
  rules.filter(([holds]) => !holds).map(([, problem]) => problem);

const official = (version: OfficialVersion, name: DialectName, title: string): Dialect => ({
  name,
  format: "official",
  title,
  tensors: (shape) => officialTensors(shape, version),
  problems: (shape) =>
    broken([
      [
        version === 3 || shape.norm === "layernorm",
        "model.norm: expected layernorm, received rmsnorm",
      ],
      [
        version === 3 || !(shape.untieClsNorm || shape.untieLocalClsNorm),
        "model.untieClsNorm, untieLocalClsNorm: expected false without rotary positions, received true",
      ],
      [
        version === 3 || !shape.maskKeyBias,
        "model.maskKeyBias: expected false without rotary positions, received true",
      ],
      [
        version > 1 || (shape.projBias && shape.ffnBias),
        "model.projBias, ffnBias: expected true, received false",
      ],
    ]),
});

/** What both libraries lack. */
const libraryRules = (shape: BackboneShape): Rule[] => [
  [shape.norm === "layernorm", "model.norm: expected layernorm, received rmsnorm"],
  [!shape.untieClsNorm, "model.untieClsNorm: expected false, received true"],
];

const bothBiases = ({ projBias, ffnBias }: BackboneShape): Rule => [
  projBias && ffnBias,
  `model.projBias, ffnBias: expected true, received ${projBias} and ${ffnBias}`,
];

const rotaryRules = ({ rope }: BackboneOptions): Rule[] => [
  [rope.base !== null, "model.rope.base: expected a number, received null (minPeriod, maxPeriod)"],
  [
    rope.normalize === "separate",
    `model.rope.normalize: expected separate, received ${rope.normalize}`,
  ],
];

const transformersDinov2 = (name: DialectName, title: string): Dialect => ({
  name,
  format: "transformers",
  title,
  tensors: dinov2Tensors,
  problems: (shape) =>
    broken([
      ...libraryRules(shape),
      bothBiases(shape),
      [
        wholeRatio(shape) !== undefined,
        `model.mlpRatio: expected an integer (and for swiglu ffnMultiple 8), received ${shape.hidden} hidden features of width ${shape.width}`,
      ],
    ]),
});

const list: readonly Dialect[] = [
  official(1, "dino", "official DINO"),
  official(2, "dinov2", "official DINOv2"),
  official(3, "dinov3", "official DINOv3"),
  {
    name: "transformers-vit",
    format: "transformers",
    title: "transformers ViTModel (DINO)",
    tensors: vitTensors,
    problems: (shape) => broken([...libraryRules(shape), bothBiases(shape)]),
  },
  transformersDinov2("transformers-dinov2", "transformers Dinov2Model"),
  transformersDinov2("transformers-dinov2-registers", "transformers Dinov2WithRegistersModel"),
  {
    name: "transformers-dinov3",
    format: "transformers",
    title: "transformers DINOv3ViTModel",
    tensors: dinov3Tensors,
    problems: (shape, options) => broken([...libraryRules(shape), ...rotaryRules(options)]),
  },
  {
    name: "timm-vit",
    format: "timm",
    title: "timm VisionTransformer (DINO, DINOv2)",
    tensors: timmVitTensors,
    problems: (shape, { normEps }) =>
      broken([
        ...libraryRules(shape),
        [
          shape.projBias === shape.ffnBias,
          `model.projBias, ffnBias: expected both or none, received ${shape.projBias} and ${shape.ffnBias}`,
        ],
        [normEps === 1e-6, `model.normEps: expected 1e-6, received ${normEps}`],
      ]),
  },
  {
    name: "timm-eva",
    format: "timm",
    title: "timm Eva (DINOv3)",
    tensors: timmEvaTensors,
    problems: (shape, options) =>
      broken([
        ...libraryRules(shape),
        ...rotaryRules(options),
        bothBiases(shape),
        [
          !shape.qkvBias || shape.maskKeyBias,
          "model.maskKeyBias: expected true (keys have no bias there), received false",
        ],
        [
          options.normEps === 1e-5 || options.normEps === 1e-6,
          `model.normEps: expected 1e-5 or 1e-6, received ${options.normEps}`,
        ],
        [
          shape.layerScale || options.normEps !== 1e-5,
          "model.layerScale: expected above 0 where normEps is 1e-5, received 0",
        ],
      ]),
  },
];

const byName = new Map(list.map((dialect) => [dialect.name, dialect]));

export function dialectNamed(name: DialectName): Dialect {
  return byName.get(name) as Dialect;
}

/** The format's names for such a backbone. */
export function dialectFor(format: WeightFormat, shape: BackboneShape): Dialect {
  const rotary = shape.positions === "rope";
  const plain = shape.registers === 0 && !shape.layerScale && shape.ffn === "mlp";
  switch (format) {
    case "official":
      if (rotary) return dialectNamed("dinov3");
      return dialectNamed(plain && shape.projBias && shape.ffnBias ? "dino" : "dinov2");
    case "transformers":
      if (rotary) return dialectNamed("transformers-dinov3");
      if (shape.registers > 0) return dialectNamed("transformers-dinov2-registers");
      return dialectNamed(plain ? "transformers-vit" : "transformers-dinov2");
    case "timm":
      return dialectNamed(rotary ? "timm-eva" : "timm-vit");
  }
}

/** Integer r with which Dinov2Model has the hidden width: int(r D), of which SwiGLU takes two thirds rounded up to a multiple of 8. */
export function wholeRatio({ width, hidden, ffn }: BackboneShape): number | undefined {
  const hiddenOf = (ratio: number): number =>
    ffn === "mlp" ? ratio * width : Math.ceil(Math.floor((ratio * width * 2) / 3) / 8) * 8;
  for (let ratio = 1; ratio <= 32; ratio++) if (hiddenOf(ratio) === hidden) return ratio;
  return undefined;
}
