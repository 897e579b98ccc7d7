import { type Losses, layoutOf, type RunSpecInput, scalarsAt } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { initialCenters, trainStep } from "./index.js";
import { batchOf, localDeps, run, specOf, tinyModel } from "./testing/workers.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

const dinov3 = {
  ...tinyModel,
  positions: "rope",
  rope: { shift: 0.1, rescale: 2 },
  norm: "rmsnorm",
  maskKeyBias: true,
  untieClsNorm: true,
  untieLocalClsNorm: true,
} as const;
const bySample = { ...tinyModel, dropPathMode: "sample", dropPathUniform: false } as const;

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

/** Everything whose numbers a distribution over workers could touch. */
const recipes: readonly Partial<RunSpecInput>[] = [
  {},
  { loss: { centering: "softmax" } },
  // A neighbour may be another rank's image.
  { loss: { koleoGroup: "all", koleoTopk: 2, samePairs: true } },
  {
    heads: {
      dino: { prototypes: 24, bottleneck: 8, hidden: 16, batchNorm: true, freezeMagnitude: true },
      ibot: { prototypes: 20, bottleneck: 8, hidden: 16, weightNorm: false },
    },
  },
  { loss: { gram: { teacher: "ema", tokens: "masked", negatives: "remove" } } },
  { loss: { gram: { teacher: "frozen", imageLevel: true } } },
  // A wider, deeper teacher than the student.
  {
    distillation: {
      checkpoint: "unused",
      model: { ...tinyModel, width: 32, depth: 3 },
      heads: {
        dino: { prototypes: 24, bottleneck: 16, hidden: 32 },
        ibot: { prototypes: 20, bottleneck: 16, hidden: 32 },
      },
    },
  },
];

test("a rank's losses and gradients are bit-identical however ranks are dealt to workers", async () => {
  for (const changes of recipes) {
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

test("a head with a frozen magnitude emits no gradient for it; a plain one has none", async () => {
  const [, , , forms] = recipes;
  const spec = specOf(forms);
  const { gradients } = await run(spec, [[0, 1, 2]]);
  const gradientOf = (unit: string, name: string) => {
    const parameters = layoutOf(spec).units.find(
      (candidate) => candidate.name === unit,
    )?.parameters;
    const found = parameters?.find((parameter) => parameter.name.endsWith(name));
    return (gradients.get(`0 ${unit}`) ?? new Float32Array(0)).subarray(
      found?.offset,
      (found?.offset ?? 0) + (found?.elements ?? 0),
    );
  };
  const moves = (values: Float32Array) => values.some((value) => value !== 0);
  expect(moves(gradientOf("dino_head", "last_layer.weight_g"))).toBe(false);
  expect(moves(gradientOf("dino_head", "last_layer.weight_v"))).toBe(true);
  expect(moves(gradientOf("dino_head", "mlp.1.weight"))).toBe(true);
  expect(moves(gradientOf("ibot_head", "last_layer.weight"))).toBe(true);
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
  for (const model of [tinyModel, dinov3, bySample]) {
    const kept = await run(specOf({ model }), [[0, 1, 2]]);
    const engine = { activations: "recompute" } as const;
    const recomputed = await run(specOf({ model, engine }), [[0, 1, 2]]);
    expect(recomputed.gradients).toEqual(kept.gradients);
    expect(recomputed.losses).toEqual(kept.losses);
  }
});

test("rotary positions that move in training, and stochastic depth by sample: any dealing, nothing left over", async () => {
  for (const model of [dinov3, bySample]) {
    const before = tf.memory().numTensors;
    const spec = specOf({ model });
    const whole = await run(spec, [[0, 1, 2]]);
    expect(tf.memory().numTensors).toBe(before);
    const parts = await run(spec, [[2], [0, 1]]);
    expect(parts.losses).toEqual(whole.losses);
    expect(parts.gradients).toEqual(whole.gradients);
    const other = await run({ ...spec, seed: spec.seed + 1 }, [[0, 1, 2]]);
    expect(other.losses).not.toEqual(whole.losses);
  }
});

test("the student's coordinates move, the teacher's do not", async () => {
  const still = { ...dinov3, dropPathRate: 0 };
  const asked: object[] = [];
  const results = await Promise.all(
    [0, 0.5].map(async (shift) => {
      const spec = specOf({ model: still });
      const layout = layoutOf(spec);
      const deps = localDeps(spec, layout, new Map(), async (_key, [x]) => x as Float32Array);
      return await trainStep({
        spec,
        layout,
        step: 0,
        scalars: scalarsAt(spec, 0),
        batches: [batchOf(spec, 0)],
        centers: initialCenters(spec),
        deps,
        drawRope(key) {
          asked.push(key);
          return { shift: [shift, shift], logJitter: [0, 0], logRescale: 0 };
        },
      });
    }),
  );
  expect(results[0]?.losses).not.toEqual(results[1]?.losses);
  // Forward and backward of two steps, two blocks and two groups: the teacher asked for none.
  expect(asked.length).toBe(2 * 2 * 2 * 2);
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
    const schedules = { localWeight: { start: 0.25, peak: 0.25, end: 0.25 } };
    const { losses, gradients } = await run(specOf({ loss, schedules }), [[0, 1, 2]]);
    for (const parts of losses.values() as Iterable<Record<keyof Losses, number>>) {
      const { dinoLocal, dinoGlobal, koleo, ibot } = parts;
      const dino = 0.25 * dinoLocal + dinoGlobal;
      const total = loss.dino * dino + loss.koleo * koleo + loss.ibot * ibot;
      expect(parts.total).toBeCloseTo(total, 5);
      for (const name of off) expect(parts[name as "ibot" | "koleo"]).toBe(0);
    }
    expect(gradients.size).toBe(3 * layoutOf(specOf()).units.length);
  }
});

test("without local crops the two global crops carry the whole DINO loss", async () => {
  const usual = specOf();
  const spec = specOf({
    crops: { ...usual.crops, localCount: 0 },
    heads: { ...usual.heads, ibot: null },
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
  for (const failing of ["sinkhorn.1", "koleo", "block.1", "norm", "dino_head"]) {
    const spec = specOf({ loss: { koleoGroup: "all" } });
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

test("a loss that is not finite is reported as it is", async () => {
  const spec = specOf();
  const layout = layoutOf(spec);
  const deps = localDeps(spec, layout, new Map(), async (_key, [first]) => first as Float32Array);
  const batch = batchOf(spec, 0);
  const { losses } = await trainStep({
    spec,
    layout,
    step: 0,
    scalars: scalarsAt(spec, 0),
    batches: [{ ...batch, globalCrops: batch.globalCrops.fill(Number.NaN, 0, 1) }],
    centers: initialCenters(spec),
    deps,
  });
  expect(losses[0]?.total).toBeNaN();
});
