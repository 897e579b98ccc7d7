/** The whole step on 1 to 4 workers in one process: same losses, same norms, same state, to the last bit. */

import { createRequire } from "node:module";
import { dirname } from "node:path";
import {
  evenCuts,
  layoutOf,
  parseRunSpec,
  type RunSpec,
  ranksOfCut,
  rngOf,
  shardOf,
  stepNorms,
} from "@paddock/contract";
import { type Engine, openEngine } from "@paddock/engine";
import {
  type Centers,
  hostVectors,
  initialCenters,
  initialUnit,
  type RankBatch,
  referenceFlatMath,
  type VectorSpace,
} from "@paddock/model";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ShadowOf, ShardState } from "../engine/calls.js";
import { type ResidentState, residentState } from "./resident-state.js";
import { allocateShards, keptShards } from "./shards.js";
import { allocateState, stateBytes } from "./state.js";
import { StepRunner } from "./step.js";
import { Mailroom } from "./testing/mailroom.js";

beforeAll(async () => {
  const wasm = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(`${dirname(wasm)}/`);
  await tf.setBackend("wasm");
});

function specOf(dtype: "fp16" | "fp32", centering: "sinkhorn" | "softmax" = "sinkhorn"): RunSpec {
  return parseRunSpec({
    steps: 5,
    logicalRanks: 4,
    batchPerRank: 2,
    model: {
      width: 16,
      depth: 2,
      heads: 2,
      patchSize: 4,
      channels: 1,
      layerScale: 0.5,
      dropPathRate: 0.4,
    },
    heads: { dino: { prototypes: 32, bottleneck: 8, hidden: 16, layers: 2 } },
    data: { path: "unused" },
    crops: {
      global: { size: 16, scale: [0.4, 1] },
      local: { size: 8, scale: [0.1, 0.4] },
      localCount: 2,
      mean: [0],
      std: [1],
    },
    loss: { centering },
    schedules: { learningRate: { peak: 0.01 } },
    // Two random images per rank lie close together: KoLeo's gradient is large, so fp16 wants a small scale.
    exchange: { dtype, initialScale: 1 },
  });
}

function batchOf(spec: RunSpec, step: number, rank: number): RankBatch {
  const rng = rngOf(99, step, rank);
  const pixels = (count: number, side: number): Float32Array =>
    Float32Array.from({ length: count * side * side }, () => rng.normal());
  const images = spec.batchPerRank;
  return {
    rank,
    globalCrops: pixels(2 * images, 16),
    localCrops: pixels(2 * images, 8),
    // Rank 1 has no masked patch: it must join all sums all the same.
    maskRows: rank === 1 ? new Int32Array(0) : Int32Array.of(1, 2, 5, 20),
    maskWeights: rank === 1 ? new Float32Array(0) : Float32Array.of(1 / 3, 1 / 3, 1 / 3, 1),
  };
}

interface Outcome {
  readonly centers: Centers;
  readonly text: string[];
  readonly student: Map<string, Float32Array>;
  readonly teacher: Map<string, Float32Array>;
}

/** Three steps on `workers` runners; what is returned must not depend on `workers`. With shadows, each is compared with its owner. */
async function train<V>(
  spec: RunSpec,
  workers: number,
  vectors: VectorSpace<V>,
  { withShadows = false, cuts = evenCuts(spec.logicalRanks, workers) } = {},
): Promise<Outcome> {
  const layout = layoutOf(spec);
  const mail = new Mailroom();
  const states: ShardState[] = [];
  const shadows: ShadowOf<Float32Array>[] = [];
  const residents: ResidentState<V>[] = [];
  const runners = Array.from({ length: workers }, (_, worker) => {
    const membership = { generation: 1, worker, workers, cuts };
    const shards = allocateShards(
      spec,
      membership,
      withShadows ? (worker + workers - 1) % workers : -1,
    );
    const { state, shadow } = shards;
    states.push(state);
    if (shadow) shadows.push(shadow);
    for (const kept of keptShards(shards)) {
      for (const unit of layout.units) {
        const { start, end } = shardOf(unit.elements, kept.membership.worker, workers);
        kept.state.student[unit.name]?.set(initialUnit(spec, unit).subarray(start, end));
        kept.state.teacher[unit.name]?.set(initialUnit(spec, unit).subarray(start, end));
      }
    }
    const resident = residentState(vectors, state);
    residents.push(resident);
    const shadowResident = shadow && residentState(vectors, shadow.state);
    if (shadowResident) residents.push(shadowResident);
    return new StepRunner({
      spec,
      membership,
      state: resident.state,
      shadow: shadow && shadowResident && { worker: shadow.worker, state: shadowResident.state },
      centers: initialCenters(spec),
      vectors,
      host: mail.hostOf(worker, workers),
      now: () => performance.now(),
    });
  });
  const text: string[] = [];
  for (let step = 0; step < 3; step++) {
    for (const [worker, runner] of runners.entries()) {
      mail.published.set(String(worker), runner.encodeWeights());
    }
    const reports = await Promise.all(
      runners.map((runner, worker) => {
        const { start, end } = ranksOfCut(cuts, worker);
        const batches = Array.from({ length: end - start }, (_, i) =>
          batchOf(spec, step, start + i),
        );
        return runner.compute(step, spec.exchange.initialScale, batches);
      }),
    );
    const { submodules: gradNorm, all } = stepNorms(
      layout.normGroups,
      reports.flatMap(({ normRoots }) => normRoots),
    );
    text.push(
      JSON.stringify({ step, losses: reports.flatMap((report) => report.losses), gradNorm, all }),
    );
    for (const runner of runners) runner.update(step, all);
  }
  for (const resident of residents) {
    resident.sync();
    resident.close();
  }
  for (const { worker, state } of shadows) expect(state).toEqual(states[worker]);
  expect(shadows).toHaveLength(withShadows ? workers : 0);
  // Collectives work only if all workers ask for the same in the same order, whatever ranks they have.
  for (const asked of mail.collectives) expect(asked).toEqual(mail.collectives[0]);
  const whole = (kind: "student" | "teacher"): Map<string, Float32Array> =>
    new Map(
      layout.units.map((unit) => [
        unit.name,
        Float32Array.from(states.flatMap((state) => [...(state[kind][unit.name] as Float32Array)])),
      ]),
    );
  const { centers } = runners[0] as StepRunner<V>;
  return { text, centers, student: whole("student"), teacher: whole("teacher") };
}

const onHost = hostVectors(referenceFlatMath);

test.each([
  ["fp32", "sinkhorn"],
  ["fp16", "sinkhorn"],
  ["fp32", "softmax"],
] as const)(
  "%s exchange, %s: 1, 2, 3 and 4 workers are bit-identical",
  async (dtype, centering) => {
    const spec = specOf(dtype, centering);
    const one = await train(spec, 1, onHost);
    for (const workers of [2, 3, 4]) {
      const many = await train(spec, workers, onHost);
      expect(many.text).toEqual(one.text);
      expect(many.student).toEqual(one.student);
      expect(many.teacher).toEqual(one.teacher);
      expect(many.centers).toEqual(one.centers);
    }
    expect(one.text.every((line) => !line.includes("null"))).toBe(true);
    // The centre is state: three committed steps have moved it and left a mean that is still to enter it.
    const { dino, pendingDino } = one.centers;
    expect(dino?.some((value) => value !== 0)).toBe(centering === "softmax" ? true : undefined);
    expect(pendingDino?.some((value) => value !== 0)).toBe(
      centering === "softmax" ? true : undefined,
    );
    const tensors = tf.memory().numTensors;
    await train(spec, 2, onHost);
    expect(tf.memory().numTensors).toBe(tensors);
  },
);

test.each(["fp32", "fp16"] as const)(
  "%s exchange: what another worker keeps of a shard is the shard, bit by bit",
  async (dtype) => {
    const spec = specOf(dtype, "sinkhorn");
    const alone = await train(spec, 1, onHost);
    for (const workers of [2, 3]) {
      const { text } = await train(spec, workers, onHost, { withShadows: true });
      expect(text).toEqual(alone.text);
    }
  },
);

test("unequal workers: however the ranks are dealt, the step is the same", async () => {
  const spec = specOf("fp16", "softmax");
  const even = await train(spec, 2, onHost);
  for (const cuts of [
    [0, 1, 4],
    [0, 3, 4],
    [0, 1, 2, 4],
  ]) {
    const uneven = await train(spec, cuts.length - 1, onHost, { cuts });
    expect(uneven.text).toEqual(even.text);
    expect(uneven.student).toEqual(even.student);
  }
});

/** DINO's first steps: each tensor clipped by itself, the prototypes' magnitude and at first their direction held. */
function dinoSpec(kind: "adamw" | "sgd" | "lars", clipBy: "tensor" | "submodule"): RunSpec {
  const spec = specOf("fp32", "softmax");
  const { heads, schedules, optimizer } = spec;
  return {
    ...spec,
    heads: { ...heads, dino: { ...heads.dino, freezeMagnitude: true } },
    schedules: { ...schedules, freezeLastLayerSteps: 1 },
    optimizer: {
      ...optimizer,
      kind,
      clipBy,
      clipNorm: 0.05,
      decay: "matrices",
      freezeLastLayer: "gradient",
    },
  };
}

test.each([
  ["adamw", "tensor"],
  ["sgd", "tensor"],
  ["lars", "tensor"],
  ["lars", "submodule"],
] as const)("%s, clipped by %s: 1 to 4 workers are bit-identical", async (kind, clipBy) => {
  const spec = dinoSpec(kind, clipBy);
  const one = await train(spec, 1, onHost);
  for (const workers of [2, 3, 4]) {
    const many = await train(spec, workers, onHost);
    expect(many.text).toEqual(one.text);
    expect(many.student).toEqual(one.student);
    expect(many.teacher).toEqual(one.teacher);
  }
  const norms = normsOf(one);
  expect(norms["dino_head.last_layer.weight_v"]).toBeGreaterThan(0);
  expect(norms["dino_head.last_layer.weight_g"]).toBeUndefined();
  const unit = layoutOf(spec).units.at(-1);
  if (!unit) throw new RangeError("no unit");
  for (const { name, offset, elements } of unit.parameters) {
    const at = (values?: Float32Array) => values?.subarray(offset, offset + elements);
    const initial = at(initialUnit(spec, unit));
    if (name.endsWith("weight_g")) expect(at(one.student.get(unit.name)), name).toEqual(initial);
    else expect(at(one.student.get(unit.name)), name).not.toEqual(initial);
  }
});

function normsOf({ text }: Outcome): Record<string, number> {
  return JSON.parse(text[0] ?? "").all;
}

/** Norms and sums of the first step; a product is compared with what it could be at most. */
function expectSimilarNorms(actual: Outcome, expected: Outcome): void {
  const [ours, wanted] = [normsOf(actual), normsOf(expected)];
  expect(Object.keys(ours)).toEqual(Object.keys(wanted));
  for (const [key, value] of Object.entries(wanted)) {
    const [, of = key] = key.split(" ");
    const largest = of === key ? value : (wanted[of] ?? 0) * (wanted[`weight ${of}`] ?? 0);
    const difference = Math.abs((ours[key] ?? Number.NaN) - value);
    expect(difference, key).toBeLessThanOrEqual(1e-6 * Math.max(largest, value));
  }
}

function expectSimilarWeights(actual: Outcome, expected: Outcome, allowed: number): void {
  for (const [unit, values] of actual.student) {
    const wanted = expected.student.get(unit) as Float32Array;
    const worst = values.reduce((most, x, i) => Math.max(most, Math.abs(x - (wanted[i] ?? 0))), 0);
    expect(worst, unit).toBeLessThan(allowed);
  }
}

describe("with state in the library's memory, as on a GPU", () => {
  let engine: Engine | undefined;
  beforeAll(async () => {
    const options = { name: "torch", threads: 1, device: "cpu", vectors: "library" } as const;
    engine = await openEngine(options).catch(() => undefined);
  });
  afterAll(async () => {
    await tf.setBackend("wasm");
  });

  test("LARS agrees with the host's, and for 1 to 4 workers", async () => {
    if (!engine?.vectors) return;
    const spec = dinoSpec("lars", "tensor");
    const host = await train(spec, 1, hostVectors(engine.flat ?? referenceFlatMath));
    const one = await train(spec, 1, engine.vectors);
    expectSimilarNorms(one, host);
    expectSimilarWeights(one, host, 1e-5);
    for (const workers of [2, 3, 4]) {
      const many = await train(spec, workers, engine.vectors);
      expect(many.text).toEqual(one.text);
      expect(many.student).toEqual(one.student);
    }
    const tensors = tf.memory().numTensors;
    await train(spec, 2, engine.vectors);
    expect(tf.memory().numTensors).toBe(tensors);
  });

  test.each(["fp32", "fp16"] as const)("%s exchange: 1 to 4 workers agree", async (dtype) => {
    if (!engine?.vectors) return;
    const spec = specOf(dtype);
    const host = await train(spec, 1, hostVectors(engine.flat ?? referenceFlatMath));
    const one = await train(spec, 1, engine.vectors);
    // The same arithmetic but for the order of roundings in AdamW, EMA and norms: a few float32 ulps a step.
    expectSimilarWeights(one, host, dtype === "fp32" ? 1e-4 : 2e-3);
    for (const workers of [2, 3, 4]) {
      const many = await train(spec, workers, engine.vectors);
      expect(many.text).toEqual(one.text);
      expect(many.student).toEqual(one.student);
      expect(many.teacher).toEqual(one.teacher);
    }
    const tensors = tf.memory().numTensors;
    await train(spec, 2, engine.vectors);
    expect(tf.memory().numTensors).toBe(tensors);
  });
});

test("fp16 products: the loss is scaled once, and any number of workers agrees", async () => {
  const options = { name: "torch", threads: 1, device: "cpu" } as const;
  const engine = await openEngine(options).catch(() => undefined);
  try {
    if (!engine) return;
    const vectors = hostVectors(engine.flat ?? referenceFlatMath);
    const exact = specOf("fp32");
    const low: RunSpec = {
      ...exact,
      engine: { ...exact.engine, precision: "fp16" },
      exchange: { ...exact.exchange, initialScale: 64 },
    };
    const [wanted, one, three] = [
      await train(exact, 1, vectors),
      await train(low, 1, vectors),
      await train(low, 3, vectors),
    ];
    expect(three.text).toEqual(one.text);
    const norms = ({ text }: Outcome): Record<string, number> => JSON.parse(text[0] ?? "").gradNorm;
    for (const [submodule, norm] of Object.entries(norms(wanted))) {
      // Half precision rounds at 2^-11; a scale left in or taken out twice is a factor of 64.
      expect((norms(one)[submodule] ?? 0) / norm, submodule).toBeCloseTo(1, 1);
    }
  } finally {
    await tf.setBackend("wasm");
  }
});

test("a worker holds 16 bytes per parameter / W and gathers at most two units of each side", async () => {
  const spec = specOf("fp32");
  const layout = layoutOf(spec);
  const elements = layout.units.reduce((sum, unit) => sum + unit.elements, 0);
  const bytes = [0, 1, 2].map((worker) =>
    stateBytes(allocateState(spec, { generation: 1, worker, workers: 3 })),
  );
  expect(bytes.reduce((a, b) => a + b)).toBe(16 * elements);
});
