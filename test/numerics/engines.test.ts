/**
 * One whole training step of small but complete recipes on every engine against one reference (TF.js's JavaScript backend): losses,
 * every gradient, gradient norms, centres, and the weights of student and teacher after the update.
 */
import {
  type Layout,
  layoutOf,
  parseRunSpec,
  type RunSpec,
  type RunSpecInput,
  rngOf,
  type StepScalars,
} from "@paddock/contract";
import {
  clipCoefficient,
  type FlatMath,
  initialCenters,
  initialUnit,
  learningRateOf,
  type RankBatch,
  referenceFlatMath,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { beforeEach, describe, expect, test } from "vitest";
import { type RunState, runStep } from "../golden/one-rank.js";
import { expectClose } from "./support/close.js";
import { engines, onReference } from "./support/engines.js";
import {
  allowedFor,
  expectWithinRounding,
  type Named,
  type Reference,
  respond,
} from "./support/rounding.js";

const head = { bottleneck: 16, hidden: 40, layers: 3 };

/** One row per recipe: what differs from `specOf`'s. */
const recipes: Readonly<Record<string, Partial<RunSpecInput>>> = {
  "Sinkhorn, MLP, a head per loss": {
    heads: { dino: { ...head, prototypes: 50 }, ibot: { ...head, prototypes: 30 } },
  },
  "Sinkhorn, SwiGLU, one head": {
    model: { ...model(), ffn: "swiglu" },
    heads: { dino: { ...head, prototypes: 50 } },
  },
  "softmax centring, recomputed activations": {
    heads: { dino: { ...head, prototypes: 50 } },
    loss: { centering: "softmax" },
    engine: { activations: "recompute" },
  },
  "batch norm, frozen magnitudes, plain prototypes, all pairs, two neighbours": {
    heads: {
      dino: { ...head, prototypes: 50, batchNorm: true, freezeMagnitude: true },
      ibot: { ...head, prototypes: 30, weightNorm: false },
    },
    loss: { samePairs: true, koleoTopk: 2 },
  },
};

function model() {
  return {
    width: 24,
    depth: 3,
    heads: 2,
    patchSize: 4,
    channels: 1,
    registers: 2,
    layerScale: 0.5,
    dropPathRate: 0.3,
  };
}

function specOf(changes: Partial<RunSpecInput>): RunSpec {
  return parseRunSpec({
    steps: 10,
    logicalRanks: 1,
    batchPerRank: 4,
    data: { path: "unused" },
    fleet: { workers: 1 },
    model: model(),
    crops: {
      global: { size: 16, scale: [0.3, 1] },
      local: { size: 8, scale: [0.1, 0.3] },
      localCount: 3,
      mean: [0],
      std: [1],
    },
    optimizer: { layerDecay: 0.8, clipNorm: 0.5 },
    heads: { dino: { ...head, prototypes: 50 } },
    ...changes,
  });
}

const scalars: StepScalars = {
  learningRate: 1e-3,
  lastLayerLearningRate: 5e-4,
  weightDecay: 0.04,
  momentum: 0.9,
  teacherTemperature: 0.05,
  localWeight: 1,
  gramWeight: 1,
};

describe.each(engines)("a whole step on $name", ({ use, flat }) => {
  beforeEach(use);

  test.each(Object.keys(recipes))("%s", async (recipe) => {
    const spec = specOf(recipes[recipe] ?? {});
    const layout = layoutOf(spec);
    const inputs = inputsOf(spec, layout);
    const step = (values: Named, math = referenceFlatMath) => stepOf(spec, layout, values, math);
    const reference = await onReference(async () => {
      const { outputs, response } = await respond(inputs, async (x) => (await step(x)).measured);
      return { outputs, response, state: (await step(inputs)).state };
    });
    const before = tf.memory().numTensors;
    const { measured, state } = await step(inputs, flat ?? undefined);
    expect(tf.memory().numTensors).toBe(before);
    expectWithinRounding(measured, reference, roundingsOf(spec));
    expectUpdated(layout, spec, { actual: state, expected: reference.state, inputs, reference });
  });
});

/**
 * Weights and pixels of every layer are shaken at once, so what lies between two layers counts once: the longest sum of a layer
 * (rows of a weight's gradient), and the operations of the longest branch. Sinkhorn and the losses have no weights of their own.
 */
function roundingsOf(spec: RunSpec) {
  const { crops, batchPerRank, loss } = spec;
  const tokens = (size: number) => (size / spec.model.patchSize) ** 2 + 1 + spec.model.registers;
  const globalRows = 2 * batchPerRank * tokens(crops.global.size);
  const rows = globalRows + crops.localCount * batchPerRank * tokens(crops.local.size);
  const { prototypes } = spec.heads.dino;
  const balancing = loss.sinkhornIterations * (globalRows + prototypes);
  const entropy = 2 * prototypes;
  return { terms: rows + balancing + entropy, operations: 10 + 2 * loss.sinkhornIterations + 10 };
}

/** Weights that leave nothing at zero or one, and random pixels. */
function inputsOf(spec: RunSpec, layout: Layout): Named {
  const { crops, batchPerRank } = spec;
  const rng = rngOf(11);
  const normals = (count: number) => Float32Array.from({ length: count }, () => rng.normal());
  const shift = (values: Float32Array) => values.map((value) => value + 0.1 * rng.normal());
  return new Map([
    ...layout.units.map((u) => [`student ${u.name}`, shift(initialUnit(spec, u))] as const),
    ...layout.units.map((u) => [`teacher ${u.name}`, shift(initialUnit(spec, u))] as const),
    ["global", normals(2 * batchPerRank * crops.global.size ** 2)] as const,
    ["local", normals(crops.localCount * batchPerRank * crops.local.size ** 2)] as const,
  ]);
}

function valuesOf(named: Named, name: string): Float32Array {
  const values = named.get(name);
  if (!values) throw new RangeError(`no values ${name}`);
  return values;
}

async function stepOf(spec: RunSpec, layout: Layout, values: Named, flat: FlatMath) {
  const vectors = (of: (name: string, elements: number) => Float32Array) =>
    new Map(layout.units.map(({ name, elements }) => [name, of(name, elements)]));
  const zeros = () => vectors((_, elements) => new Float32Array(elements));
  const state: RunState = {
    student: vectors((name) => valuesOf(values, `student ${name}`).slice()),
    teacher: vectors((name) => valuesOf(values, `teacher ${name}`).slice()),
    m: zeros(),
    v: zeros(),
    centers: initialCenters(spec),
  };
  const maskRows = Int32Array.of(1, 5, 6, 40, 41, 127);
  const batch: RankBatch = {
    rank: 0,
    globalCrops: valuesOf(values, "global"),
    localCrops: valuesOf(values, "local"),
    maskRows,
    maskWeights: Float32Array.of(1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1),
  };
  const outcome = await runStep(state, { spec, layout, step: 0, scalars, batch, flat });
  const { rank: _, ...losses } = outcome.losses;
  const measured = new Map<string, Float32Array>();
  for (const [name, value] of Object.entries(losses)) measured.set(name, Float32Array.of(value));
  for (const [name, value] of outcome.gradNorm) measured.set(name, Float32Array.of(value));
  for (const [name, value] of Object.entries(state.centers)) if (value) measured.set(name, value);
  for (const { unit, name, start, end } of parametersOf(layout)) {
    measured.set(name, valuesOf(outcome.grads, unit).subarray(start, end));
  }
  return { measured, state };
}

function parametersOf(layout: Layout) {
  return layout.units.flatMap(({ name: unit, submodule, parameters }) =>
    parameters.map((parameter) => {
      const { name, offset: start, elements } = parameter;
      return { unit, submodule, parameter, name, start, end: start + elements };
    }),
  );
}

interface Update {
  readonly actual: RunState;
  readonly expected: RunState;
  readonly inputs: Named;
  readonly reference: Reference;
}

/**
 * AdamW's first step moves a weight by lr g / (|g| + eps), g clipped. Its slope is eps / (|g| + eps)^2: a gradient well above its own
 * noise gives the same weight to a few units, one within its noise may have either sign and moves the weight by lr either way.
 */
function expectUpdated(layout: Layout, spec: RunSpec, update: Update): void {
  const { inputs, reference } = update;
  const roundings = roundingsOf(spec);
  const { eps, clipNorm } = spec.optimizer;
  let [settled, all] = [0, 0];
  for (const { unit, submodule, parameter, name, start, end } of parametersOf(layout)) {
    const [norm = Number.NaN] = valuesOf(reference.outputs, submodule);
    const clip = clipCoefficient(norm, clipNorm);
    const ofNorm = allowedFor(submodule, reference, roundings) / norm;
    const ofGradient = allowedFor(name, reference, roundings);
    const lr = learningRateOf(parameter, scalars);
    const moves = valuesOf(reference.outputs, name).map((value) => {
      const noise = clip * (ofGradient + Math.abs(value) * ofNorm);
      const certain = Math.max(0, clip * Math.abs(value) - noise);
      return Math.min(2 * lr, (lr * eps * noise) / (certain + eps) ** 2);
    });
    settled += moves.filter((move) => move < lr / 100).length;
    all += moves.length;
    const largest = valuesOf(inputs, `student ${unit}`).reduce(
      (a, x) => Math.max(a, Math.abs(x)),
      lr,
    );
    for (const side of ["student", "teacher"] as const) {
      const share = side === "student" ? 1 : 1 - scalars.momentum;
      const [actual, expected] = [update.actual, update.expected].map((state) =>
        valuesOf(state[side], unit).subarray(start, end),
      ) as [Float32Array, Float32Array];
      const errors = actual.map((value, i) => {
        const difference = Math.abs(value - (expected[i] ?? Number.NaN));
        return Math.max(0, difference - share * (moves[i] ?? 0));
      });
      // Decay, step and average: four roundings of a value of at most this size.
      expectClose(
        `${side} ${name}`,
        errors,
        new Float32Array(errors.length),
        () => 2 ** -22 * largest,
      );
    }
  }
  expect(settled / all).toBeGreaterThan(0.9);
}
