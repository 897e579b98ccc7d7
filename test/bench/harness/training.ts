/**
 * A run on one process, all logical ranks local: the model's step with flat shards around it, without exchange, coordinator
 * and data. What is left is the work of an engine.
 */
import {
  chunkElements,
  chunksIn,
  type Layout,
  layoutOf,
  type RunSpec,
  scalarsAt,
  sumTree,
  type Unit,
} from "@paddock/contract";
import { drawMasks } from "@paddock/data";
import type { Engine } from "@paddock/engine";
import {
  clipCoefficient,
  flattenGradients,
  initialCenters,
  initialUnit,
  type RankBatch,
  referenceFlatMath,
  type StepDeps,
  trainStep,
  updateUnit,
  viewUnit,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";

type Vectors = ReadonlyMap<string, Float32Array>;

export interface Training {
  readonly layout: Layout;
  readonly student: Vectors;
  /** One whole step with its update. Returns the mean loss over ranks, in nats. */
  step(batches: readonly RankBatch[]): Promise<number>;
  /** Of the last step, mean over ranks, clipped. */
  gradients(): Vectors;
}

/** A run before its first step. */
export function startTraining(spec: RunSpec, engine: Engine): Training {
  const layout = layoutOf(spec);
  const flat = engine.flat ?? referenceFlatMath;
  const units = new Map(layout.units.map((unit) => [unit.name, unit]));
  const unitOf = (name: string) => units.get(name) as Unit;
  const zeros = () => mapUnits(layout, ({ elements }) => shared(elements));
  const student = mapUnits(layout, (unit) => {
    const values = shared(unit.elements);
    values.set(initialUnit(spec, unit));
    return values;
  });
  const teacher = mapUnits(layout, ({ name, elements }) => {
    const values = shared(elements);
    values.set(student.get(name) as Float32Array);
    return values;
  });
  const [m, v] = [zeros(), zeros()];
  const weights = { student, teacher };
  let centers = initialCenters(spec);
  let lastGradients: Vectors = new Map();
  let step = 0;

  const add = (left: Float32Array, right: Float32Array): Float32Array => {
    flat.add(left, right);
    return left;
  };
  /** In the order of the fixed tree over ranks, the first leaf's memory being reused. */
  const sumRanks = (leaves: readonly Float32Array[]): Float32Array =>
    sumTree(
      { start: 0, end: leaves.length },
      (node) => (node.end - node.start === 1 ? leaves[node.start] : undefined),
      add,
    );

  return {
    layout,
    student,
    gradients: () => lastGradients,
    async step(batches) {
      const leaves = new Map<string, Float32Array[]>();
      const deps: StepDeps = {
        async gather(side, name) {
          const vector = engine.tensorFromFlat(weights[side].get(name) as Float32Array);
          const tensors = viewUnit(unitOf(name), vector, spec.engine.precision);
          vector.dispose();
          return { tensors, release: () => tf.dispose(Object.values(tensors)) };
        },
        prefetch() {
          // Everything is here.
        },
        async emitGradient(name, _rank, grads) {
          const leaf = await flattenGradients(unitOf(name), grads);
          tf.dispose(Object.values(grads));
          leaves.set(name, [...(leaves.get(name) ?? []), leaf]);
        },
        async sumAcrossRanks(_key, perRank) {
          return sumRanks(perRank.map((vector) => vector.slice()));
        },
      };
      const scalars = scalarsAt(spec, step);
      const result = await trainStep({ spec, layout, step, scalars, batches, centers, deps });
      const grads = mapUnits(layout, ({ name }) => {
        const sum = sumRanks(leaves.get(name) as Float32Array[]);
        if (batches.length > 1) flat.scale(sum, 1 / batches.length);
        return sum;
      });
      const norms = normsOf(layout, grads, flat.sumSquares);
      for (const unit of layout.units) {
        const of = (vectors: Vectors) => vectors.get(unit.name) as Float32Array;
        const shard = {
          student: of(student),
          teacher: of(teacher),
          m: of(m),
          v: of(v),
          grad: of(grads),
        };
        const norm = norms.get(unit.submodule) as number;
        updateUnit(flat, unit, { start: 0, end: unit.elements }, shard, {
          spec,
          scalars,
          step,
          clipCoefficient: clipCoefficient(norm, spec.optimizer.clipNorm),
        });
      }
      centers = result.centers;
      lastGradients = grads;
      step++;
      return result.losses.reduce((sum, { total }) => sum + total, 0) / batches.length;
    },
  };
}

/** Noise instead of images, and masks as drawn for step 0: the cost of a step does not depend on what its images show. */
export function noiseBatch(spec: RunSpec, rank: number): RankBatch {
  const { crops, model, batchPerRank } = spec;
  const pixels = (count: number, side: number): Float32Array => {
    const values = shared(count * batchPerRank * side ** 2 * model.channels);
    // Weyl sequence: uniform in [-1.7, 1.7), unit variance, and the same for everybody.
    for (let i = 0; i < values.length; i++) {
      values[i] = (((i + 1 + rank * 7919) * 0.6180339887498949) % 1) * 3.4 - 1.7;
    }
    return values;
  };
  return {
    rank,
    globalCrops: pixels(2, crops.global.size),
    localCrops: crops.localCount > 0 ? pixels(crops.localCount, crops.local.size) : null,
    ...drawMasks(spec, 0, rank),
  };
}

function normsOf(
  layout: Layout,
  grads: Vectors,
  sumSquares: (x: Float32Array, chunk: number, out: Float64Array) => void,
): Map<string, number> {
  const squares = new Map<string, number>();
  for (const { name, submodule, elements } of layout.units) {
    const chunks = new Float64Array(chunksIn(elements));
    sumSquares(grads.get(name) as Float32Array, chunkElements, chunks);
    const sum = chunks.reduce((a, b) => a + b, 0);
    squares.set(submodule, (squares.get(submodule) ?? 0) + sum);
  }
  return new Map([...squares].map(([submodule, sum]) => [submodule, Math.sqrt(sum)]));
}

function mapUnits(layout: Layout, of: (unit: Unit) => Float32Array): Map<string, Float32Array> {
  return new Map(layout.units.map((unit) => [unit.name, of(unit)]));
}

function shared(elements: number): Float32Array {
  return new Float32Array(new SharedArrayBuffer(4 * elements));
}
