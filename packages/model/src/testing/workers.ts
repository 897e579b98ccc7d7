/** A tiny run whose ranks are dealt to workers of one process, who meet in `sumAcrossRanks`. */
import {
  frozenUnitsOf,
  type Layout,
  layoutOf,
  parseRunSpec,
  type RunSpec,
  type RunSpecInput,
  rngOf,
  scalarsAt,
  sumTree,
} from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import {
  type Centers,
  flatGradient,
  initialCenters,
  initialUnit,
  type RankBatch,
  type RankMonitor,
  type Side,
  type StepDeps,
  trainStep,
  viewUnit,
} from "../index.js";

export const tinyModel = {
  width: 16,
  depth: 2,
  heads: 2,
  patchSize: 4,
  channels: 1,
  registers: 1,
  layerScale: 0.5,
  dropPathRate: 0.3,
} as const;

export function specOf(changes: Partial<RunSpecInput> = {}): RunSpec {
  return parseRunSpec({
    steps: 10,
    logicalRanks: 3,
    batchPerRank: 2,
    model: tinyModel,
    heads: {
      dino: { prototypes: 24, bottleneck: 8, hidden: 16 },
      ibot: { prototypes: 20, bottleneck: 8, hidden: 16 },
    },
    data: { path: "unused" },
    crops: {
      global: { size: 16, scale: [0.3, 1] },
      local: { size: 8, scale: [0.1, 0.3] },
      localCount: 2,
      mean: [0],
      std: [1],
    },
    fleet: { workers: 1 },
    ...changes,
  });
}

/** Random crops; rank 1 has no masked patch. */
export function batchOf(spec: RunSpec, rank: number): RankBatch {
  const rng = rngOf(99, rank);
  const { crops, batchPerRank } = spec;
  const pixels = (count: number, size: number): Float32Array =>
    Float32Array.from({ length: count * size * size }, () => rng.normal());
  const locals = crops.localCount * batchPerRank;
  const maskRows = rank === 1 ? [] : [1, 5, 6, 40];
  return {
    rank,
    globalCrops: pixels(2 * batchPerRank, crops.global.size),
    localCrops: locals > 0 ? pixels(locals, crops.local.size) : null,
    maskRows: Int32Array.from(maskRows),
    maskWeights: Float32Array.from(maskRows, (row) => (row < 16 ? 1 / 3 : 1)),
  };
}

export interface Outcome {
  readonly losses: Map<number, object>;
  readonly monitors: Map<number, Omit<RankMonitor, "rank">>;
  readonly gradients: Map<string, Float32Array>;
  readonly centers: Centers;
  readonly mostGathered: number;
}

/** Runs a step with the ranks dealt to workers, who meet in `sumAcrossRanks`. */
export async function run(
  spec: RunSpec,
  workers: readonly (readonly number[])[],
  batch = (rank: number) => batchOf(spec, rank),
): Promise<Outcome> {
  const layout = layoutOf(spec);
  const sums = meeting(spec.logicalRanks, workers.length);
  const outcome = { losses: new Map(), monitors: new Map(), gradients: new Map(), mostGathered: 0 };
  const scalars = scalarsAt(spec, 3);
  const results = await Promise.all(
    workers.map(async (ranks) => {
      const deps = localDeps(spec, layout, outcome.gradients, (key, vectors) =>
        sums(key, ranks, vectors),
      );
      const result = await trainStep({
        spec,
        layout,
        step: 3,
        scalars,
        batches: ranks.map(batch),
        centers: initialCenters(spec),
        deps,
      });
      outcome.mostGathered = Math.max(outcome.mostGathered, deps.mostGathered());
      for (const { rank, ...losses } of result.losses) outcome.losses.set(rank, losses);
      for (const { rank, ...monitor } of result.monitors) outcome.monitors.set(rank, monitor);
      return result;
    }),
  );
  return { ...outcome, centers: (results[0] as (typeof results)[number]).centers };
}

interface Room {
  readonly vectors: Map<number, Float32Array>;
  readonly waiting: (() => void)[];
}

/** A rendezvous of workers: everybody gets the tree sum once all ranks have brought their vectors. */
function meeting(ranks: number, workers: number) {
  const rooms = new Map<string, Room>();
  return async (key: string, own: readonly number[], vectors: readonly Float32Array[]) => {
    const room: Room = rooms.get(key) ?? { vectors: new Map(), waiting: [] };
    rooms.set(key, room);
    for (const [i, vector] of vectors.entries()) room.vectors.set(own[i] as number, vector);
    if (room.waiting.length < workers - 1) {
      await new Promise<void>((resolve) => room.waiting.push(resolve));
    } else {
      for (const wake of room.waiting) wake();
    }
    return sumTree<Float32Array>(
      { start: 0, end: ranks },
      ({ start, end }) => (end - start === 1 ? room.vectors.get(start) : undefined),
      (left, right) => left.map((value, i) => value + (right[i] as number)),
    );
  };
}

export function localDeps(
  spec: RunSpec,
  layout: Layout,
  gradients: Map<string, Float32Array>,
  sumAcrossRanks: StepDeps["sumAcrossRanks"],
): StepDeps & { mostGathered(): number } {
  const frozen = frozenUnitsOf(spec);
  const unitOf = (name: string, side: Side = "student") =>
    (side === "frozen" ? frozen : layout.units).find((unit) => unit.name === name) as never;
  const seeds = { student: 1, teacher: 2, frozen: 3 };
  const open = new Set<string>();
  let most = 0;
  return {
    async gather(side, name) {
      open.add(`${side} ${name}`);
      most = Math.max(most, open.size);
      const unit = unitOf(name, side);
      const flat = tf.tensor1d(initialUnit({ ...spec, seed: seeds[side] }, unit));
      const tensors = viewUnit(unit, flat);
      flat.dispose();
      return {
        tensors,
        release() {
          open.delete(`${side} ${name}`);
          tf.dispose(Object.values(tensors));
        },
      };
    },
    prefetch(side, name) {
      open.add(`${side} ${name}`);
      most = Math.max(most, open.size);
    },
    async emitGradient(name, rank, grads) {
      gradients.set(`${rank} ${name}`, await taken(flatGradient(unitOf(name), grads)));
      tf.dispose(Object.values(grads));
    },
    sumAcrossRanks,
    mostGathered: () => most,
  };
}

async function taken(x: tf.Tensor1D): Promise<Float32Array> {
  const values = (await x.data()) as Float32Array;
  x.dispose();
  return values;
}
