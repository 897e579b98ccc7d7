/** The update of one shard: clipped gradient, AdamW per parameter, EMA of the teacher. */
import {
  intersect,
  type Parameter,
  type Range,
  type RunSpec,
  type StepScalars,
  type Unit,
} from "@paddock/contract";
import type { AdamWPart, VectorSpace } from "./vectors.js";

/** One worker's part of a unit: five aligned vectors of one length. All are updated in place. */
export interface Shard<V> {
  readonly student: V;
  /** The mean gradient over logical ranks, before clipping; clipped in place. */
  readonly grad: V;
  readonly m: V;
  readonly v: V;
  readonly teacher: V;
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
export function updateUnit<V>(
  vectors: VectorSpace<V>,
  unit: Unit,
  range: Range,
  shard: Shard<V>,
  o: UpdateOptions,
): void {
  if (o.clipCoefficient < 1) vectors.scale(shard.grad, o.clipCoefficient);
  const { beta1, beta2, eps } = o.spec.optimizer;
  for (const { learningRate, weightDecay, parts } of groupsOf(vectors, unit, range, shard, o)) {
    vectors.adamw(parts, { learningRate, weightDecay, beta1, beta2, eps, step: o.step + 1 });
  }
  vectors.ema(shard.teacher, shard.student, o.scalars.momentum);
}

interface ParameterGroup<V> {
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly parts: AdamWPart<V>[];
}

/** The parameters that lie in `range`, cut to it, by learning rate and weight decay: on a device each group is one launch. */
function groupsOf<V>(
  vectors: VectorSpace<V>,
  unit: Unit,
  range: Range,
  shard: Shard<V>,
  { scalars }: UpdateOptions,
): Iterable<ParameterGroup<V>> {
  const groups = new Map<string, ParameterGroup<V>>();
  for (const parameter of unit.parameters) {
    const { offset, elements } = parameter;
    const part = intersect(range, { start: offset, end: offset + elements });
    if (!part) continue;
    const cut = (x: V): V => vectors.view(x, part.start - range.start, part.end - range.start);
    const learningRate = learningRateOf(parameter, scalars);
    const weightDecay = weightDecayOf(parameter, scalars);
    const key = `${learningRate} ${weightDecay}`;
    const group = groups.get(key) ?? { learningRate, weightDecay, parts: [] };
    groups.set(key, group);
    const { student, grad, m, v } = shard;
    group.parts.push({ param: cut(student), grad: cut(grad), m: cut(m), v: cut(v) });
  }
  return groups.values();
}
