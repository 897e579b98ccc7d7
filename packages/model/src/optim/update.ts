/** The update of one shard: clipped gradient, AdamW per parameter, EMA of the teacher. */
import {
  intersect,
  type Parameter,
  type Range,
  type RunSpec,
  type StepScalars,
  type Unit,
} from "@paddock/contract";
import type { FlatMath } from "./flat-math.js";

/** One worker's part of a unit: five aligned vectors of one length. All are updated in place. */
export interface Shard {
  readonly student: Float32Array;
  /** The mean gradient over logical ranks, before clipping; clipped in place. */
  readonly grad: Float32Array;
  readonly m: Float32Array;
  readonly v: Float32Array;
  readonly teacher: Float32Array;
}

/** The factor on a submodule's gradient of that norm: limit / (norm + 1e-6), at most 1 (torch). A limit of 0: never clip. */
export function clipCoefficient(norm: number, limit: number): number {
  return limit === 0 ? 1 : Math.min(1, limit / (norm + 1e-6));
}

/** A parameter's learning rate: its layer's share, or for prototypes that of the last layer (0 while it is frozen). */
export function learningRateOf(
  parameter: Pick<Parameter, "isLastLayer" | "lrMultiplier">,
  scalars: StepScalars,
): number {
  const base = parameter.isLastLayer ? scalars.lastLayerLearningRate : scalars.learningRate;
  return base * parameter.lrMultiplier;
}

/** A parameter's weight decay: the schedule's, or 0 for biases, norms and LayerScale. */
export function weightDecayOf(
  parameter: Pick<Parameter, "wdMultiplier">,
  scalars: StepScalars,
): number {
  return scalars.weightDecay * parameter.wdMultiplier;
}

export interface UpdateOptions {
  readonly spec: Pick<RunSpec, "optimizer">;
  readonly scalars: StepScalars;
  /** From 0. */
  readonly step: number;
  readonly clipCoefficient: number;
}

/**
 * Updates the elements `range` of a unit's flat vector: the optimizer step, then the EMA teacher with the new weights.
 * Frozen prototypes keep their values while their moments collect. Padding stays zero.
 */
export function updateUnit(
  flat: FlatMath,
  unit: Unit,
  range: Range,
  shard: Shard,
  o: UpdateOptions,
): void {
  if (o.clipCoefficient < 1) flat.scale(shard.grad, o.clipCoefficient);
  const { beta1, beta2, eps } = o.spec.optimizer;
  for (const parameter of unit.parameters) {
    const { offset, elements } = parameter;
    const part = intersect(range, { start: offset, end: offset + elements });
    if (!part) continue;
    const cut = (x: Float32Array): Float32Array =>
      x.subarray(part.start - range.start, part.end - range.start);
    flat.adamw(cut(shard.student), cut(shard.grad), cut(shard.m), cut(shard.v), {
      learningRate: learningRateOf(parameter, o.scalars),
      weightDecay: weightDecayOf(parameter, o.scalars),
      beta1,
      beta2,
      eps,
      step: o.step + 1,
    });
  }
  flat.ema(shard.teacher, shard.student, o.scalars.momentum);
}
