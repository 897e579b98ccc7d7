/**
 * A run on one process, all logical ranks local: the model's step with flat shards around it, without exchange, coordinator
 * and data. What is left is the work of an engine.
 */
import {
  type Layout,
  layoutOf,
  type RunSpec,
  scalarsAt,
  stepNorms,
  sumTree,
  type Unit,
} from "@paddock/contract";
import { drawMasks } from "@paddock/data";
import type { Engine } from "@paddock/engine";
import {
  flatGradient,
  hostVectors,
  initialCenters,
  initialUnit,
  type NormShard,
  normNodes,
  type RankBatch,
  referenceFlatMath,
  type StepDeps,
  trainStep,
  updateUnit,
  type VectorSpace,
  viewUnit,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";

type Vectors<V> = ReadonlyMap<string, V>;

export interface Training {
  readonly layout: Layout;
  /** As they were before the first step. */
  initial(unit: Unit): Float32Array;
  /** One whole step with its update. Returns the mean loss over ranks, in nats. */
  step(batches: readonly RankBatch[]): Promise<number>;
}

/** Takes a step's gradients by unit: mean over ranks, clipped. */
type OnGradients = (gradients: ReadonlyMap<string, Float32Array>) => void;

/** A run before its first step, its state where the engine keeps vectors: on the device, or on the host. */
export function startTraining(spec: RunSpec, engine: Engine, onGradients?: OnGradients): Training {
  engine.allowTf32(spec.engine.precision !== "fp32");
  return engine.vectors
    ? trainingOn(engine.vectors, spec, ({ tensor }) => tf.clone(tensor), onGradients)
    : trainingOn(
        hostVectors(engine.flat ?? referenceFlatMath, engine.readInto),
        spec,
        (values) => engine.tensorFromFlat(values),
        onGradients,
      );
}

function trainingOn<V>(
  vectors: VectorSpace<V>,
  spec: RunSpec,
  asTensor: (vector: V) => tf.Tensor1D,
  onGradients: OnGradients | undefined,
): Training {
  const layout = layoutOf(spec);
  const units = new Map(layout.units.map((unit) => [unit.name, unit]));
  const unitOf = (name: string) => units.get(name) as Unit;
  const initial = (unit: Unit): Float32Array => initialUnit(spec, unit);
  const filled = (of: (unit: Unit) => Float32Array | undefined) =>
    mapUnits(layout, (unit) => {
      const home = shared(unit.elements);
      const values = of(unit);
      if (values) home.set(values);
      return vectors.from(home);
    });
  const [student, teacher] = [filled(initial), filled(initial)];
  const [m, v] = [filled(() => undefined), filled(() => undefined)];
  const weights = { student, teacher };
  let centers = initialCenters(spec);
  let step = 0;

  const add = (left: V, right: V): V => {
    vectors.add(left, right);
    vectors.dispose(right);
    return left;
  };
  const arrayOf = (vector: V): Float32Array => {
    const values = new Float32Array(vectors.size(vector));
    vectors.read(vector, values);
    return values;
  };
  /** In the order of the fixed tree over ranks, the first leaf's memory being reused. */
  const sumRanks = <L>(leaves: readonly L[], plus: (left: L, right: L) => L): L =>
    sumTree(
      { start: 0, end: leaves.length },
      (node) => (node.end - node.start === 1 ? leaves[node.start] : undefined),
      plus,
    );

  return {
    layout,
    initial,
    async step(batches) {
      const leaves = new Map<string, V[]>();
      const deps: StepDeps = {
        async gather(side, name) {
          const vector = asTensor(weights[side as "student" | "teacher"].get(name) as V);
          const tensors = viewUnit(unitOf(name), vector, spec.engine.precision);
          vector.dispose();
          return { tensors, release: () => tf.dispose(Object.values(tensors)) };
        },
        prefetch() {
          // Everything is here.
        },
        async emitGradient(name, _rank, grads) {
          const flat = flatGradient(unitOf(name), grads);
          tf.dispose(Object.values(grads));
          leaves.set(name, [...(leaves.get(name) ?? []), await vectors.adopt(flat)]);
        },
        async sumAcrossRanks(_key, perRank) {
          return sumRanks(
            perRank.map((vector) => vector.slice()),
            addHost,
          );
        },
      };
      const scalars = scalarsAt(spec, step);
      const result = await trainStep({ spec, layout, step, scalars, batches, centers, deps });
      const grads = mapUnits(layout, ({ name }) => {
        const sum = sumRanks(leaves.get(name) as V[], add);
        if (batches.length > 1) vectors.scale(sum, 1 / batches.length);
        return sum;
      });
      const shardOf = ({ name }: Unit): NormShard<V> => ({
        start: 0,
        grad: grads.get(name) as V,
        student: student.get(name) as V,
      });
      const nodes = normNodes(vectors, layout, shardOf);
      const norms = stepNorms(layout.normGroups, nodes).all;
      for (const unit of layout.units) {
        const of = (all: Vectors<V>) => all.get(unit.name) as V;
        const shard = {
          student: of(student),
          teacher: of(teacher),
          m: of(m),
          v: of(v),
          grad: of(grads),
        };
        updateUnit(vectors, unit, { start: 0, end: unit.elements }, shard, {
          spec,
          scalars,
          step,
          norms,
        });
      }
      centers = result.centers;
      if (onGradients) onGradients(mapUnits(layout, ({ name }) => arrayOf(grads.get(name) as V)));
      for (const gradient of grads.values()) vectors.dispose(gradient);
      step++;
      return result.losses.reduce((sum, { total }) => sum + total, 0) / batches.length;
    },
  };
}

// hot:
function addHost(left: Float32Array, right: Float32Array): Float32Array {
  for (let i = 0; i < left.length; i++) left[i] = (left[i] as number) + (right[i] as number);
  return left;
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

function mapUnits<V>(layout: Layout, of: (unit: Unit) => V): Map<string, V> {
  return new Map(layout.units.map((unit) => [unit.name, of(unit)]));
}

function shared(elements: number): Float32Array {
  return new Float32Array(new SharedArrayBuffer(4 * elements));
}
