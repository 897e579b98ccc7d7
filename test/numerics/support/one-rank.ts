/** A run of one logical rank in memory: parameters and moments as flat vectors, gradients adopted directly. */
import {
  chunkElements,
  chunksIn,
  type Layout,
  type RunSpec,
  type StepScalars,
} from "@paddock/contract";
import {
  type Centers,
  type ChooseSequences,
  clipCoefficient,
  type FlatMath,
  flatGradient,
  hostVectors,
  type Precision,
  type RankBatch,
  type RankLosses,
  referenceFlatMath,
  type StepDeps,
  trainStep,
  updateUnit,
  viewUnit,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";

type Vectors = Map<string, Float32Array>;

const vectors = hostVectors(referenceFlatMath);

/** Flat vectors by unit name. */
export interface RunState {
  readonly student: Vectors;
  readonly teacher: Vectors;
  readonly m: Vectors;
  readonly v: Vectors;
  centers: Centers;
}

export interface StepInputs {
  readonly spec: RunSpec;
  readonly layout: Layout;
  /** Steps of the optimizer, from 0. */
  readonly step: number;
  readonly scalars: StepScalars;
  readonly batch: RankBatch;
  /** Updates the weights; the reference by default. */
  readonly flat?: FlatMath | null;
  readonly chooseSequences?: ChooseSequences;
  /** Factor on the loss, 1 by default; gradients are given without it. */
  readonly lossScale?: number;
}

export interface StepOutcome {
  readonly losses: RankLosses;
  /** Before clipping, by unit. */
  readonly grads: Vectors;
  /** By submodule. */
  readonly gradNorm: Map<string, number>;
}

/** One step and its update of `state`. */
export async function runStep(state: RunState, inputs: StepInputs): Promise<StepOutcome> {
  const { layout, spec, scalars, step, batch, chooseSequences, lossScale = 1 } = inputs;
  const grads: Vectors = new Map();
  const { losses, centers } = await trainStep({
    spec,
    layout,
    step,
    scalars,
    lossScale,
    batches: [batch],
    centers: state.centers,
    deps: depsOf(state, layout, spec.engine.precision, grads),
    ...(chooseSequences ? { chooseSequences } : {}),
  });
  for (const grad of grads.values()) referenceFlatMath.scale(grad, 1 / lossScale);
  state.centers = centers;
  const gradNorm = normsOf(layout, grads);
  for (const unit of layout.units) {
    const of = (vectors: Vectors) => vectors.get(unit.name) as Float32Array;
    const shard = {
      student: of(state.student),
      teacher: of(state.teacher),
      m: of(state.m),
      v: of(state.v),
      grad: of(grads).slice(),
    };
    const norm = gradNorm.get(unit.submodule) as number;
    const flat = inputs.flat ? hostVectors(inputs.flat) : vectors;
    updateUnit(flat, unit, { start: 0, end: unit.elements }, shard, {
      spec,
      scalars,
      step,
      clipCoefficient: clipCoefficient(norm, spec.optimizer.clipNorm),
    });
  }
  return { losses: losses[0] as RankLosses, grads, gradNorm };
}

function depsOf(state: RunState, layout: Layout, precision: Precision, grads: Vectors): StepDeps {
  const unitOf = (name: string) => {
    const unit = layout.units.find((candidate) => candidate.name === name);
    if (!unit) throw new RangeError(`no unit ${name}`);
    return unit;
  };
  return {
    async gather(side, name) {
      const flat = tf.tensor1d(state[side as "student" | "teacher"].get(name) as Float32Array);
      const tensors = viewUnit(unitOf(name), flat, precision);
      flat.dispose();
      return { tensors, release: () => tf.dispose(Object.values(tensors)) };
    },
    prefetch() {},
    async emitGradient(name, _rank, tensors) {
      grads.set(name, await vectors.adopt(flatGradient(unitOf(name), tensors)));
      tf.dispose(Object.values(tensors));
    },
    async sumAcrossRanks(_key, [vector]) {
      return vector as Float32Array;
    },
  };
}

function normsOf(layout: Layout, grads: Vectors): Map<string, number> {
  const squares = new Map<string, number>();
  for (const { name, submodule, elements } of layout.units) {
    const chunks = new Float64Array(chunksIn(elements));
    referenceFlatMath.sumSquares(grads.get(name) as Float32Array, chunkElements, chunks);
    const sum = chunks.reduce((a, b) => a + b, 0);
    squares.set(submodule, (squares.get(submodule) ?? 0) + sum);
  }
  return new Map([...squares].map(([submodule, sum]) => [submodule, Math.sqrt(sum)]));
}
