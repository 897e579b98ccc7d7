/**
 * What the backbone's code needs to know of a spec. The rest shows in the parameters themselves: a norm without a bias is an RMS norm,
 * and there are biases, LayerScale, registers and norms of their own for cls tokens where there are parameters of these names.
 */
import { gridSide, type RopeSpec, type RunSpec, sizeOfModel } from "@paddock/contract";

export interface VitConfig {
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Pixels. */
  readonly patchSize: number;
  readonly registers: number;
  readonly ffn: "mlp" | "swiglu";
  readonly normEps: number;
  /** The key part of qkv's bias is held at 0. */
  readonly maskKeyBias: boolean;
  /** Rotary positions, or null for a learned encoding that is added. */
  readonly rope: RopeSpec | null;
  /** Side of the position encoding's grid, in patches. */
  readonly gridSide: number;
  readonly interpolateOffset: number;
  readonly interpolateAntialias: boolean;
}

export function vitConfigOf(spec: Pick<RunSpec, "model" | "crops">): VitConfig {
  const { model } = spec;
  return {
    ...sizeOfModel(model),
    patchSize: model.patchSize,
    registers: model.registers,
    ffn: model.ffn,
    normEps: model.normEps,
    maskKeyBias: model.maskKeyBias,
    rope: model.positions === "rope" ? model.rope : null,
    gridSide: gridSide(spec),
    interpolateOffset: model.interpolateOffset,
    interpolateAntialias: model.interpolateAntialias,
  };
}

/** Stochastic-depth rate of each block: constant, or rising linearly from 0 (numpy.linspace). */
export function dropPathRates(model: RunSpec["model"]): number[] {
  const { depth } = sizeOfModel(model);
  const { dropPathRate: rate } = model;
  return Array.from({ length: depth }, (_, i) =>
    model.dropPathUniform ? rate : depth === 1 ? 0 : (rate * i) / (depth - 1),
  );
}
