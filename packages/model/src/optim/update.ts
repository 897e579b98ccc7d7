/** The update of one shard: clipped gradient, optimizer per parameter, EMA of the teacher. */
import {
  intersect,
  invariant,
  type Parameter,
  type Range,
  type RunSpec,
  type StepScalars,
  type Unit,
} from "@paddock/contract";
import { momentumStep, trustRatio } from "./momentum.js";
import type { OptimizerPart, VectorSpace } from "./vectors.js";

/** One worker's part of a unit: five aligned vectors of one length. All are updated in place. */
export interface Shard<V> {
  readonly student: V;
  /** The mean gradient over logical ranks, before clipping; clipped in place. */
  readonly grad: V;
  readonly m: V;
  readonly v: V;
  readonly teacher: V;
}

/** The factor on a gradient of that norm, a submodule's or a tensor's: limit / (norm + 1e-6), at most 1 (torch). A limit of 0: never clip. */
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
  readonly spec: {
    readonly optimizer: RunSpec["optimizer"];
    readonly schedules: Pick<RunSpec["schedules"], "freezeLastLayerSteps">;
  };
  readonly scalars: StepScalars;
  /** From 0. */
  readonly step: number;
  /** Of gradients before clipping, and what else the optimizer needs: the contract's `stepNorms().all`. */
  readonly norms: Readonly<Record<string, number>>;
}

/**
 * Updates the elements `range` of a unit's flat vector: the optimizer step, then the EMA teacher with the new weights.
 * Frozen prototypes keep their values; their moments collect or not, as the spec says. Padding stays zero.
 */
export function updateUnit<V>(
  vectors: VectorSpace<V>,
  unit: Unit,
  range: Range,
  shard: Shard<V>,
  o: UpdateOptions,
): void {
  const { optimizer } = o.spec;
  if (optimizer.clipBy === "submodule") {
    const clip = clipOf(unit.submodule, o);
    if (clip < 1) vectors.scale(shard.grad, clip);
  } else clipTensors(vectors, unit, range, shard, o);
  const trained = unit.parameters.filter(
    (parameter) => parameter.trainable && !isHeldBack(parameter, o),
  );
  if (optimizer.kind === "adamw") {
    const { beta1, beta2, eps } = optimizer;
    for (const { parts, ...group } of groupsOf(vectors, trained, range, shard, o)) {
      vectors.adamw(parts, { ...group, beta1, beta2, eps });
    }
  } else stepWithMomentum(vectors, unit, trained, range, shard, o);
  vectors.ema(shard.teacher, shard.student, o.scalars.momentum);
}

/** The norm or sum of that key. */
function normOf(key: string, { norms }: UpdateOptions): number {
  const norm = norms[key];
  invariant(norm !== undefined, `no gradient norm of ${key}`);
  return norm;
}

/** The clip coefficient of a submodule, or of a parameter where each is clipped by itself. */
function clipOf(key: string, o: UpdateOptions): number {
  return clipCoefficient(normOf(key, o), o.spec.optimizer.clipNorm);
}

function clipTensors<V>(
  vectors: VectorSpace<V>,
  { parameters }: Unit,
  range: Range,
  { grad }: Shard<V>,
  o: UpdateOptions,
): void {
  for (const parameter of parameters) {
    const part = partOf(parameter, range);
    if (!part || !parameter.trainable) continue;
    const clip = clipOf(parameter.name, o);
    if (clip < 1) vectors.scale(vectors.view(grad, part.start, part.end), clip);
  }
}

/** Whether DINO's rule drops the gradient of this parameter: the optimizer does not see it at all. */
function isHeldBack({ isLastLayer }: Parameter, { spec, step }: UpdateOptions): boolean {
  const { optimizer, schedules } = spec;
  return (
    isLastLayer && optimizer.freezeLastLayer === "gradient" && step < schedules.freezeLastLayerSteps
  );
}

/** Steps that a parameter's moments have seen with this one, from 1: those of a last layer whose gradient was dropped begin late. */
function stepsSeen({ isLastLayer }: Parameter, { spec, step }: UpdateOptions): number {
  const late = isLastLayer && spec.optimizer.freezeLastLayer === "gradient";
  return step + 1 - (late ? spec.schedules.freezeLastLayerSteps : 0);
}

/** The part of a parameter that lies in the shard, counted from the shard's first element. */
function partOf({ offset, elements }: Parameter, range: Range): Range | undefined {
  const part = intersect(range, { start: offset, end: offset + elements });
  return part && { start: part.start - range.start, end: part.end - range.start };
}

function cut<V>(vectors: VectorSpace<V>, shard: Shard<V>, { start, end }: Range): OptimizerPart<V> {
  const view = (x: V): V => vectors.view(x, start, end);
  return {
    param: view(shard.student),
    grad: view(shard.grad),
    m: view(shard.m),
    v: view(shard.v),
  };
}

interface ParameterGroup<V> {
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly step: number;
  readonly parts: OptimizerPart<V>[];
}

/** The parameters that lie in `range`, cut to it, by learning rate and weight decay: on a device each group is one launch. */
function groupsOf<V>(
  vectors: VectorSpace<V>,
  parameters: readonly Parameter[],
  range: Range,
  shard: Shard<V>,
  o: UpdateOptions,
): Iterable<ParameterGroup<V>> {
  const groups = new Map<string, ParameterGroup<V>>();
  for (const parameter of parameters) {
    const part = partOf(parameter, range);
    if (!part) continue;
    const learningRate = learningRateOf(parameter, o.scalars);
    const weightDecay = weightDecayOf(parameter, o.scalars);
    const step = stepsSeen(parameter, o);
    const key = `${learningRate} ${weightDecay} ${step}`;
    const group = groups.get(key) ?? { learningRate, weightDecay, step, parts: [] };
    groups.set(key, group);
    group.parts.push(cut(vectors, shard, part));
  }
  return groups.values();
}

/** SGD or LARS. LARS decays only what it adapts. */
function stepWithMomentum<V>(
  vectors: VectorSpace<V>,
  { submodule }: Unit,
  parameters: readonly Parameter[],
  range: Range,
  shard: Shard<V>,
  o: UpdateOptions,
): void {
  const { optimizer } = o.spec;
  for (const parameter of parameters) {
    const part = partOf(parameter, range);
    if (!part) continue;
    const decayed = optimizer.kind === "sgd" || parameter.shape.length > 1;
    const weightDecay = decayed ? weightDecayOf(parameter, o.scalars) : 0;
    const clip = clipOf(optimizer.clipBy === "tensor" ? parameter.name : submodule, o);
    const norms = (key: string): number => normOf(key, o);
    momentumStep(vectors, cut(vectors, shard, part), {
      learningRate: learningRateOf(parameter, o.scalars),
      weightDecay,
      momentum: optimizer.sgdMomentum,
      trust: trustRatio(optimizer, parameter, norms, { clip, weightDecay }),
    });
  }
}
