import {
  type Layout,
  type Losses,
  layoutOf,
  parseRunSpec,
  type RunSpec,
  type RunSpecInput,
  rngOf,
  scalarsAt,
  sumTree,
} from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import {
  type Centers,
  flatGradient,
  initialCenters,
  initialUnit,
  type RankBatch,
  type RankMonitor,
  type StepDeps,
  trainStep,
  viewUnit,
} from "./index.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

function specOf(changes: Partial<RunSpecInput> = {}): RunSpec {
  return parseRunSpec({
    steps: 10,
    logicalRanks: 3,
    batchPerRank: 2,
    model: {
      width: 16,
      depth: 2,
      heads: 2,
      patchSize: 4,
      channels: 1,
      registers: 1,
      layerScale: 0.5,
      dropPathRate: 0.3,
    },
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
function batchOf(spec: RunSpec, rank: number): RankBatch {
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

interface Outcome {
  readonly losses: Map<number, object>;
  readonly monitors: Map<number, Omit<RankMonitor, "rank">>;
  readonly gradients: Map<string, Float32Array>;
  readonly centers: Centers;
  readonly mostGathered: number;
}

/** Runs a step with the ranks dealt to workers, who meet in `sumAcrossRanks`. */
async function run(spec: RunSpec, workers: readonly (readonly number[])[]): Promise<Outcome> {
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
        batches: ranks.map((rank) => batchOf(spec, rank)),
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

function localDeps(
  spec: RunSpec,
  layout: Layout,
  gradients: Map<string, Float32Array>,
  sumAcrossRanks: StepDeps["sumAcrossRanks"],
): StepDeps & { mostGathered(): number } {
  const unitOf = (name: string) => layout.units.find((unit) => unit.name === name) as never;
  const open = new Set<string>();
  let most = 0;
  return {
    async gather(side, name) {
      open.add(`${side} ${name}`);
      most = Math.max(most, open.size);
      const values = initialUnit({ ...spec, seed: side === "student" ? 1 : 2 }, unitOf(name));
      const flat = tf.tensor1d(values);
      const tensors = viewUnit(unitOf(name), flat);
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

test("a step leaves no tensor behind and gathers at most one unit beyond the one in use", async () => {
  const before = tf.memory().numTensors;
  const { losses, gradients, mostGathered } = await run(specOf(), [[0, 1, 2]]);
  expect(tf.memory().numTensors).toBe(before);
  expect(mostGathered).toBe(2);
  expect(losses.size).toBe(3);
  expect(gradients.size).toBe(3 * layoutOf(specOf()).units.length);
  for (const [name, gradient] of gradients) {
    expect(gradient.every(Number.isFinite), name).toBe(true);
  }
});

test("a rank's losses and gradients are bit-identical however ranks are dealt to workers", async () => {
  for (const changes of [{}, { loss: { centering: "softmax" as const } }]) {
    const spec = specOf(changes);
    const whole = await run(spec, [[0, 1, 2]]);
    for (const dealt of [
      [[0], [1, 2]],
      [[0, 1], [2]],
      [[0], [1], [2]],
    ]) {
      const parts = await run(spec, dealt);
      expect(parts.losses).toEqual(whole.losses);
      expect(parts.gradients).toEqual(whole.gradients);
      expect(parts.centers).toEqual(whole.centers);
    }
  }
});

test("looking at the teacher changes nothing, and its signs do not depend on the worker", async () => {
  for (const centering of ["sinkhorn", "softmax"] as const) {
    const off = await run(specOf({ loss: { centering }, monitor: { everySteps: 0 } }), [[0, 1, 2]]);
    const on = specOf({ loss: { centering }, monitor: { everySteps: 3 } });
    const whole = await run(on, [[0, 1, 2]]);
    expect(off.monitors.size).toBe(0);
    expect([...whole.monitors.keys()]).toEqual([0, 1, 2]);
    expect(whole.losses).toEqual(off.losses);
    expect(whole.gradients).toEqual(off.gradients);
    expect(whole.centers).toEqual(off.centers);
    const before = tf.memory().numTensors;
    const parts = await run(on, [[0, 1], [2]]);
    expect(parts.monitors).toEqual(whole.monitors);
    expect(tf.memory().numTensors).toBe(before);
    for (const monitor of whole.monitors.values()) {
      const uniform = Math.log(on.heads.dino.prototypes);
      const { teacherEntropy, klToUniform, featureStd, effectiveRank } = monitor;
      expect(teacherEntropy).toBeGreaterThan(0);
      expect(klToUniform).toBeGreaterThan(0);
      expect(teacherEntropy + klToUniform).toBeLessThan(uniform);
      expect(featureStd).toBeGreaterThan(0);
      expect(effectiveRank).toBeGreaterThan(1);
      expect(effectiveRank).toBeLessThanOrEqual(2 * on.batchPerRank);
    }
  }
  const between = await run(specOf({ monitor: { everySteps: 2 } }), [[0, 1, 2]]);
  expect(between.monitors.size).toBe(0); // this is step 3
});

test("recomputed activations give the gradients of kept ones, bit for bit", async () => {
  const kept = await run(specOf(), [[0, 1, 2]]);
  const recomputed = await run(specOf({ engine: { activations: "recompute" } }), [[0, 1, 2]]);
  expect(recomputed.gradients).toEqual(kept.gradients);
  expect(recomputed.losses).toEqual(kept.losses);
});

test("a rank without masked patches has no iBOT loss and a zero gradient in the iBOT head", async () => {
  const { losses, gradients } = await run(specOf(), [[0, 1, 2]]);
  expect(losses.get(1)).toMatchObject({ ibot: 0 });
  expect(gradients.get("1 ibot_head")?.every((value) => value === 0)).toBe(true);
  expect(gradients.get("0 ibot_head")?.some((value) => value !== 0)).toBe(true);
});

test("the total is the weighted sum of the parts, and parts with weight 0 are absent", async () => {
  const weights = { dino: 0.7, koleo: 0.3, ibot: 2 };
  for (const off of [[], ["ibot"], ["koleo"], ["ibot", "koleo"]] as (keyof typeof weights)[][]) {
    const loss = { ...weights, ...Object.fromEntries(off.map((name) => [name, 0])) };
    const { losses, gradients } = await run(specOf({ loss }), [[0, 1, 2]]);
    for (const parts of losses.values() as Iterable<Record<keyof Losses, number>>) {
      const { dinoLocal, dinoGlobal, koleo, ibot } = parts;
      const total = loss.dino * (dinoLocal + dinoGlobal) + loss.koleo * koleo + loss.ibot * ibot;
      expect(parts.total).toBeCloseTo(total, 5);
      for (const name of off) expect(parts[name as "ibot" | "koleo"]).toBe(0);
    }
    expect(gradients.size).toBe(3 * layoutOf(specOf()).units.length);
  }
});

test("without local crops the two global crops carry the whole DINO loss", async () => {
  const base = specOf();
  const spec = specOf({
    crops: { ...base.crops, localCount: 0 },
    heads: { ...base.heads, ibot: null },
    loss: { koleo: 0, ibot: 0 },
  });
  const { losses } = await run(spec, [[0, 1, 2]]);
  for (const parts of losses.values() as Iterable<Record<keyof Losses, number>>) {
    expect(parts.dinoLocal).toBe(0);
    // A mean cross-entropy: scores in [-1, 1] over a temperature of 0.1, 24 prototypes.
    expect(parts.dinoGlobal).toBeGreaterThan(0);
    expect(parts.dinoGlobal).toBeLessThan(20 + Math.log(24));
    expect(parts.total).toBe(parts.dinoGlobal);
  }
});

test("a step that fails half-way frees everything and passes the error on", async () => {
  const before = tf.memory().numTensors;
  for (const failing of ["sinkhorn.1", "block.1", "norm", "dino_head"]) {
    const spec = specOf();
    const layout = layoutOf(spec);
    const deps = localDeps(spec, layout, new Map(), async (key, [first]) => {
      if (key === failing) throw new Error("the peer is gone");
      return first as Float32Array;
    });
    const step = trainStep({
      spec,
      layout,
      step: 0,
      scalars: scalarsAt(spec, 0),
      batches: [0, 1, 2].map((rank) => batchOf(spec, rank)),
      centers: initialCenters(spec),
      deps: {
        ...deps,
        async emitGradient(unit, rank, grads) {
          await deps.emitGradient(unit, rank, grads);
          if (unit === failing) throw new Error("the peer is gone");
        },
      },
    });
    await expect(step).rejects.toThrow("the peer is gone");
    expect(tf.memory().numTensors, failing).toBe(before);
  }
});

test("a loss that is not finite is named", async () => {
  const spec = specOf();
  const layout = layoutOf(spec);
  const deps = localDeps(spec, layout, new Map(), async (_key, [first]) => first as Float32Array);
  const batch = batchOf(spec, 0);
  const { firstBadTensor } = await trainStep({
    spec,
    layout,
    step: 0,
    scalars: scalarsAt(spec, 0),
    batches: [{ ...batch, globalCrops: batch.globalCrops.fill(Number.NaN, 0, 1) }],
    centers: initialCenters(spec),
    deps,
  });
  expect(firstBadTensor).toMatch(/^rank 0: /);
});

async function taken(x: tf.Tensor1D): Promise<Float32Array> {
  const values = (await x.data()) as Float32Array;
  x.dispose();
  return values;
}
