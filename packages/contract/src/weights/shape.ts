/** What the names and shapes of a backbone's tensors depend on; of a run's spec, or read off a file. */
import { gridSide } from "../layout/layout.js";
import { ffnHidden, type RopeSpec, sizeOfModel } from "../spec/model.js";
import type { RunSpec } from "../spec/run.js";

export interface BackboneShape {
  /** Features of a token. */
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Pixels. */
  readonly patchSize: number;
  readonly channels: number;
  readonly registers: number;
  readonly positions: "learned" | "rope";
  /** Side of the learned position grid, in patches; of the global crops with rotary positions. */
  readonly gridSide: number;
  readonly ffn: "mlp" | "swiglu";
  /** Hidden features of the feed-forward layer. */
  readonly hidden: number;
  readonly layerScale: boolean;
  readonly norm: "layernorm" | "rmsnorm";
  readonly qkvBias: boolean;
  readonly maskKeyBias: boolean;
  readonly projBias: boolean;
  readonly ffnBias: boolean;
  readonly untieClsNorm: boolean;
  readonly untieLocalClsNorm: boolean;
}

/** What a configuration file says besides. */
export interface BackboneOptions {
  readonly normEps: number;
  readonly rope: Pick<RopeSpec, "base" | "minPeriod" | "maxPeriod" | "normalize">;
}

export function shapeOf(spec: Pick<RunSpec, "model" | "crops">): BackboneShape {
  const { model } = spec;
  return {
    ...sizeOfModel(model),
    patchSize: model.patchSize,
    channels: model.channels,
    registers: model.registers,
    positions: model.positions,
    gridSide: gridSide(spec),
    ffn: model.ffn,
    hidden: ffnHidden(model),
    layerScale: model.layerScale > 0,
    norm: model.norm,
    qkvBias: model.qkvBias,
    maskKeyBias: model.qkvBias && model.maskKeyBias,
    projBias: model.projBias,
    ffnBias: model.ffnBias,
    untieClsNorm: model.untieClsNorm,
    untieLocalClsNorm: model.untieLocalClsNorm,
  };
}
