/** The part of a run spec that describes a backbone found in a file. */
import { ffnHidden, ModelSpec, sizeOfModel } from "../spec/model.js";
import type { BackboneShape } from "./shape.js";

const ratios = [4, 3, 6, 2, 8, 1];
const multiples = [8, 32, 64, 128];
const presets = ["tiny", "small", "base", "large", "so400m", "huge2", "giant2", "7b"] as const;

/** Fields of `model:` that are not their defaults. `normEps` as the file's configuration says it, if it does. */
export function modelBlockOf(shape: BackboneShape, normEps?: number): Record<string, unknown> {
  const model = ModelSpec.parse({
    ...sizeFields(shape),
    patchSize: shape.patchSize,
    channels: shape.channels,
    ffn: shape.ffn,
    ...feedForwardFields(shape),
    registers: shape.registers,
    positions: shape.positions,
    norm: shape.norm,
    maskKeyBias: shape.maskKeyBias,
    untieClsNorm: shape.untieClsNorm,
    untieLocalClsNorm: shape.untieLocalClsNorm,
    layerScale: shape.layerScale ? 1e-5 : 0,
    qkvBias: shape.qkvBias,
    projBias: shape.projBias,
    ffnBias: shape.ffnBias,
    // The official models with registers interpolate exactly and with antialiasing.
    ...(shape.positions === "learned" && shape.registers > 0
      ? { interpolateOffset: 0, interpolateAntialias: true }
      : {}),
    ...(normEps === undefined ? {} : { normEps }),
  });
  const defaults: Record<string, unknown> = ModelSpec.parse({});
  const isSize = (key: string): boolean => ["width", "depth", "heads"].includes(key);
  return Object.fromEntries(
    Object.entries(model).filter(
      ([key, value]) =>
        key === "patchSize" ||
        (isSize(key)
          ? model.arch === "custom"
          : JSON.stringify(value) !== JSON.stringify(defaults[key])),
    ),
  );
}

function sizeFields({ width, depth, heads }: BackboneShape): Record<string, unknown> {
  const preset = presets.find((arch) => {
    const size = sizeOfModel(ModelSpec.parse({ arch }));
    return size.width === width && size.depth === depth && size.heads === heads;
  });
  return preset ? { arch: preset } : { arch: "custom", width, depth, heads };
}

/** Ratio and multiple with which a spec has the hidden width. */
function feedForwardFields({ width, hidden, ffn }: BackboneShape): Record<string, number> {
  const fits = (mlpRatio: number, ffnMultiple: number): boolean =>
    ffnHidden(ModelSpec.parse({ width, ffn, mlpRatio, ffnMultiple })) === hidden;
  for (const mlpRatio of ratios) {
    for (const ffnMultiple of multiples) {
      if (fits(mlpRatio, ffnMultiple)) return { mlpRatio, ffnMultiple };
    }
  }
  // Half an element more, so that rounding down gives it.
  return ffn === "mlp"
    ? { mlpRatio: (hidden + 0.5) / width }
    : { mlpRatio: (1.5 * hidden + 1) / width, ffnMultiple: 1 };
}
