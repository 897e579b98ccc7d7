/** SGD and LARS against formulas in doubles, for any cut into shards; what a held-back last layer and fixed weights see. */
import {
  chunkElements,
  layoutOf,
  parseRunSpec,
  type RunSpec,
  type RunSpecInput,
  rngOf,
  shardOf,
  stepNorms,
  type Unit,
} from "@paddock/contract";
import { expect, test } from "vitest";
import { referenceFlatMath } from "./flat-math.js";
import { trustRatio } from "./momentum.js";
import { normNodes } from "./norms.js";
import { type Shard, updateUnit } from "./update.js";
import { hostVectors } from "./vectors.js";

const vectors = hostVectors(referenceFlatMath);
const rng = rngOf(5);

function specOf(optimizer: RunSpecInput["optimizer"], freezeMagnitude = true): RunSpec {
  return parseRunSpec({
    steps: 10,
    batchPerRank: 2,
    data: { path: "unused" },
    model: { width: 20, depth: 1, heads: 2, patchSize: 4 },
    heads: { dino: { prototypes: 30, bottleneck: 10, hidden: 25, freezeMagnitude } },
    crops: { global: { size: 16, scale: [0.3, 1] }, local: { size: 8, scale: [0.1, 0.3] } },
    schedules: { freezeLastLayerSteps: 2 },
    optimizer: { decay: "matrices", layerDecay: 1, patchEmbedMultiplier: 1, ...optimizer },
  });
}

const scalars = {
  learningRate: 0.1,
  lastLayerLearningRate: 0.1,
  weightDecay: 0.04,
  momentum: 0.9,
  teacherTemperature: 0.05,
  localWeight: 1,
  gramWeight: 1,
};

type Vectors = Shard<Float32Array>;

function randomUnit(unit: Unit): Vectors {
  const padded = (scale: number): Float32Array => {
    const values = new Float32Array(unit.elements);
    for (const { offset, elements } of unit.parameters) {
      values.set(
        Float32Array.from({ length: elements }, () => scale * rng.normal()),
        offset,
      );
    }
    return values;
  };
  const zeros = new Float32Array(unit.elements);
  return { student: padded(1), grad: padded(0.3), m: padded(0.1), v: zeros, teacher: padded(1) };
}

function copyOf(state: Vectors): Vectors {
  const entries = Object.entries(state).map(([name, values]) => [name, values.slice()]);
  return Object.fromEntries(entries) as unknown as Vectors;
}

/** The head of a run and its state. */
function headOf(spec: RunSpec): { unit: Unit; state: Vectors } {
  const unit = layoutOf(spec).units.at(-1);
  if (!unit) throw new RangeError("no unit");
  return { unit, state: randomUnit(unit) };
}

/** One step on `workers` shards. The gradient is left clipped and decayed. */
function updated(spec: RunSpec, unit: Unit, state: Vectors, workers = 1, step = 4): Vectors {
  const layout = layoutOf(spec);
  const only = {
    ...layout,
    units: [unit],
    normGroups: layout.normGroups.filter((group) => group.unit === unit.name),
  };
  const after = copyOf(state);
  const shards = Array.from({ length: workers }, (_, worker) => {
    const range = shardOf(unit.elements, worker, workers);
    const cut = Object.entries(after).map(([name, x]) => [
      name,
      x.subarray(range.start, range.end),
    ]);
    return { range, shard: Object.fromEntries(cut) as unknown as Vectors };
  });
  const nodes = shards.flatMap(({ range, shard }) =>
    normNodes(vectors, only, () => ({ start: range.start, ...shard })),
  );
  const norms = stepNorms(only.normGroups, nodes).all;
  for (const { range, shard } of shards) {
    updateUnit(vectors, unit, range, shard, { spec, scalars, step, norms });
  }
  return after;
}

const length = (x: Iterable<number>): number => Math.hypot(...x);

/** What one parameter becomes, in doubles. */
function expected(spec: RunSpec, state: Vectors, at: Unit["parameters"][number]): number[] {
  const { kind, clipNorm, sgdMomentum, larsEta } = spec.optimizer;
  const cut = (x: Float32Array): number[] => [...x.subarray(at.offset, at.offset + at.elements)];
  const [p, g, m] = [cut(state.student), cut(state.grad), cut(state.m)];
  const clip = Math.min(1, clipNorm / (length(g) + 1e-6));
  const decay = at.shape.length > 1 ? scalars.weightDecay : 0;
  const d = g.map((value, i) => clip * value + decay * (p[i] as number));
  const trust = kind === "lars" && at.shape.length > 1 ? (larsEta * length(p)) / length(d) : 1;
  return p.map(
    (value, i) =>
      value - scalars.learningRate * (sgdMomentum * (m[i] as number) + trust * (d[i] as number)),
  );
}

test.each(["sgd", "lars"] as const)("%s does what its formula says", (kind) => {
  const spec = specOf({ kind, clipBy: "tensor", clipNorm: 0.5, larsEta: 0.02 });
  const { unit, state } = headOf(spec);
  const after = updated(spec, unit, state);
  for (const at of unit.parameters) {
    const actual = after.student.subarray(at.offset, at.offset + at.elements);
    const wanted = at.trainable ? expected(spec, state, at) : [...actual];
    const worst = wanted.reduce((most, x, i) => Math.max(most, Math.abs(x - (actual[i] ?? 0))), 0);
    expect(worst, at.name).toBeLessThan(1e-6);
    const before = state.student.subarray(at.offset, at.offset + at.elements);
    if (at.trainable) expect(actual, at.name).not.toEqual(before);
    else expect(actual, at.name).toEqual(before);
  }
  expect(after.v.every((value) => value === 0)).toBe(true);
});

test.each([
  ["adamw", "tensor"],
  ["sgd", "tensor"],
  ["lars", "tensor"],
] as const)(
  "%s, clipped by %s, gives the same values for every cut into shards",
  (kind, clipBy) => {
    const spec = specOf({ kind, clipBy, clipNorm: 0.5 });
    const { unit, state } = headOf(spec);
    const whole = updated(spec, unit, state);
    for (const workers of [2, 3, 7]) {
      expect(updated(spec, unit, state, workers)).toEqual(whole);
    }
    expect(unit.parameters.every(({ offset }) => offset % chunkElements === 0)).toBe(true);
  },
);

test("a last layer whose gradient is dropped keeps value and moments, then counts its own steps", () => {
  const spec = specOf({ freezeLastLayer: "gradient", clipBy: "tensor" });
  const { unit, state } = headOf(spec);
  const last = unit.parameters.find(({ name }) => name.endsWith("weight_v"));
  const other = unit.parameters.find(({ name }) => name.endsWith("mlp.0.weight"));
  if (!last || !other) throw new RangeError("no such parameters");
  const fresh = { ...state, m: new Float32Array(unit.elements) };
  const held = updated(spec, unit, fresh, 1, 1);
  const first = updated(spec, unit, fresh, 1, 2);
  const at = (x: Float32Array, { offset, elements }: typeof last): Float32Array =>
    x.subarray(offset, offset + elements);
  for (const kind of ["student", "m", "v"] as const) {
    expect(at(held[kind], last)).toEqual(at(fresh[kind], last));
  }
  expect(at(held.student, other)).not.toEqual(at(fresh.student, other));
  // AdamW's first step: the rate, whatever the gradient. For the others, at step 2, it is not.
  const moved = (p: typeof last): number => {
    const [before, after] = [at(fresh.student, p), at(first.student, p)];
    const decay = 1 - scalars.learningRate * scalars.weightDecay;
    return Math.abs((after[0] as number) - (before[0] as number) * decay);
  };
  expect(moved(last)).toBeCloseTo(scalars.learningRate, 5);
  expect(moved(other)).toBeLessThan(0.7 * scalars.learningRate);
});

test("LARS takes the gradient as it is where weight or update is zero, and for vectors", () => {
  const { optimizer } = specOf({ kind: "lars", larsEta: 0.5 });
  const norms = new Map([
    ["w", 4],
    ["weight w", 3],
    ["product w", -12],
  ]);
  const normOf = (key: string): number => norms.get(key) ?? 0;
  const matrix = { name: "w", shape: [2, 2] };
  const plain = { clip: 1, weightDecay: 0 };
  expect(trustRatio(optimizer, matrix, normOf, plain)).toBe((0.5 * 3) / 4);
  expect(trustRatio(optimizer, matrix, normOf, { clip: 0.25, weightDecay: 0 })).toBe(0.5 * 3);
  // Gradient and decay cancel: 4 = 4/3 * 3.
  expect(trustRatio(optimizer, matrix, normOf, { clip: 1, weightDecay: 4 / 3 })).toBe(1);
  expect(trustRatio(optimizer, { ...matrix, shape: [4] }, normOf, plain)).toBe(1);
  expect(trustRatio(optimizer, { ...matrix, name: "zero" }, normOf, plain)).toBe(1);
});
