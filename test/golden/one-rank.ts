/** A run of one logical rank in memory: parameters and moments as flat vectors, gradients adopted directly. */
import {
  type Layout,
  type RunSpec,
  type StepNorms,
  type StepScalars,
  stepNorms,
} from "@paddock/contract";
import {
  type Centers,
  type ChooseSequences,
  type DrawRope,
  type FlatMath,
  features,
  flatGradient,
  headOf,
  headScores,
  hostVectors,
  normNodes,
  type Precision,
  type RankBatch,
  type RankLosses,
  referenceFlatMath,
  type StepDeps,
  type TrainStepArgs,
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
  /** Of a teacher that does not follow the student. */
  readonly frozen?: Vectors;
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
  readonly drawRope?: DrawRope;
  readonly observe?: TrainStepArgs["observe"];
  /** Factor on the loss, 1 by default; gradients are given without it. */
  readonly lossScale?: number;
}

export interface StepOutcome {
  readonly losses: RankLosses;
  /** Before clipping, by unit. */
  readonly grads: Vectors;
  /** What the update made of them: clipped, for AdamW. */
  readonly clipped: Vectors;
  /** Of submodules. */
  readonly gradNorm: ReadonlyMap<string, number>;
  /** Of all that is clipped by itself. */
  readonly norms: StepNorms["all"];
}

/** One step and its update of `state`. */
export async function runStep(state: RunState, inputs: StepInputs): Promise<StepOutcome> {
  const { layout, spec, scalars, step, lossScale = 1 } = inputs;
  const { losses, centers, grads } = await computeStep(state, inputs);
  for (const grad of grads.values()) referenceFlatMath.scale(grad, 1 / lossScale);
  state.centers = centers;
  const nodes = normNodes(vectors, layout, ({ name }) => ({
    start: 0,
    grad: grads.get(name) as Float32Array,
    student: state.student.get(name) as Float32Array,
  }));
  const norms = stepNorms(layout.normGroups, nodes);
  const clipped: Vectors = new Map();
  for (const unit of layout.units) {
    const of = (vectors: Vectors) => vectors.get(unit.name) as Float32Array;
    const shard = {
      student: of(state.student),
      teacher: of(state.teacher),
      m: of(state.m),
      v: of(state.v),
      grad: of(grads).slice(),
    };
    const flat = inputs.flat ? hostVectors(inputs.flat) : vectors;
    updateUnit(flat, unit, { start: 0, end: unit.elements }, shard, {
      spec,
      scalars,
      step,
      norms: norms.all,
    });
    clipped.set(unit.name, shard.grad);
  }
  const gradNorm = new Map(Object.entries(norms.submodules));
  return { losses: losses[0] as RankLosses, grads, clipped, gradNorm, norms: norms.all };
}

/** Losses and gradients of a step, which changes nothing. */
export async function computeStep(
  state: RunState,
  inputs: StepInputs,
): Promise<{ losses: readonly RankLosses[]; centers: Centers; grads: Vectors }> {
  const { layout, spec, scalars, step, batch, lossScale = 1 } = inputs;
  const { chooseSequences, drawRope, observe } = inputs;
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
    ...(drawRope ? { drawRope } : {}),
    ...(observe ? { observe } : {}),
  });
  return { losses, centers, grads };
}

export interface ScoreInputs {
  readonly spec: RunSpec;
  readonly layout: Layout;
  readonly side: "student" | "teacher";
  /** [N,H,W,C] */
  readonly images: Float32Array;
  /** H = W */
  readonly size: number;
}

/** A network's scores [N,K] of whole images, as in evaluation. */
export async function scoresOf(state: RunState, inputs: ScoreInputs): Promise<tf.Tensor2D> {
  const { spec, layout, side, images, size } = inputs;
  const { gather } = depsOf(state, layout, spec.engine.precision, new Map());
  const count = images.length / (size * size * spec.model.channels);
  const gatherSide = (unit: string) => gather(side, unit);
  const { cls, patches } = await features({
    spec,
    layout,
    gather: gatherSide,
    images,
    count,
    size,
  });
  const { tensors, release } = await gather(side, "dino_head");
  const scores = headScores(headOf(tensors, "dino_head"), cls);
  release();
  tf.dispose([cls, patches]);
  return scores;
}

function depsOf(state: RunState, layout: Layout, precision: Precision, grads: Vectors): StepDeps {
  const unitOf = (name: string) => {
    const unit = layout.units.find((candidate) => candidate.name === name);
    if (!unit) throw new RangeError(`no unit ${name}`);
    return unit;
  };
  return {
    async gather(side, name) {
      const flat = tf.tensor1d(state[side]?.get(name) as Float32Array);
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
