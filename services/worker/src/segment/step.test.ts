/** The whole step on 1 to 4 workers in one process: same losses, same norms, same state, to the last bit. */

import { createRequire } from "node:module";
import { dirname } from "node:path";
import {
  chunksIn,
  layoutOf,
  parseRunSpec,
  type RunSpec,
  ranksOf,
  rngOf,
  shardOf,
  sumTree,
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
import type { ShardState, StepReport } from "../engine/calls.js";
import { type ResidentState, residentState } from "./resident-state.js";
import { allocateState, stateBytes } from "./state.js";
import { type StepHost, StepRunner } from "./step.js";

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

/** Delivers messages between runners in memory. */
class Mailroom {
  readonly #mail = new Map<string, Uint8Array>();
  readonly #waiting = new Map<string, (payload: Uint8Array) => void>();
  readonly published = new Map<string, Map<string, Uint8Array>>();
  /** What each worker asked for, in its order. */
  readonly collectives: string[][] = [];

  put(key: string, payload: Uint8Array): void {
    const waiting = this.#waiting.get(key);
    if (waiting) {
      this.#waiting.delete(key);
      waiting(payload);
    } else this.#mail.set(key, payload);
  }

  take(key: string): Promise<Uint8Array> {
    const payload = this.#mail.get(key);
    this.#mail.delete(key);
    if (payload) return Promise.resolve(payload);
    return new Promise((resolve) => this.#waiting.set(key, resolve));
  }

  hostOf(worker: number, workers: number): StepHost {
    const collectives: string[] = [];
    this.collectives[worker] = collectives;
    const all = Array.from({ length: workers }, (_, peer) => peer);
    const byPeer = async (
      expectedBytes: readonly number[],
      get: (peer: number) => Uint8Array | Promise<Uint8Array>,
    ): Promise<Uint8Array[]> => {
      const got = await Promise.all(
        all.map((peer) => (peer === worker ? new Uint8Array(0) : get(peer))),
      );
      for (const peer of all) {
        if (peer !== worker) expect(got[peer]?.byteLength).toBe(expectedBytes[peer]);
      }
      return got;
    };
    return {
      fetchUnit: (step, { part, expectedBytes, everyone }) => {
        expect(everyone).toBe(true);
        collectives.push(`${step} ${part}`);
        const partOf = (peer: number) => this.published.get(String(peer))?.get(part) as Uint8Array;
        return byPeer(expectedBytes, partOf);
      },
      allToAll: (step, key, outgoing, expectedBytes) => {
        collectives.push(`${step} ${key}`);
        for (const peer of all) {
          const payload = (outgoing[peer] as Uint8Array).slice();
          if (peer !== worker) this.put(`${step} ${key} ${worker}>${peer}`, payload);
        }
        return byPeer(expectedBytes, (peer) => this.take(`${step} ${key} ${peer}>${worker}`));
      },
      phase: () => undefined,
    };
  }
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

/** Three steps on `workers` runners; what is returned must not depend on `workers`. */
async function train<V>(spec: RunSpec, workers: number, vectors: VectorSpace<V>): Promise<Outcome> {
  const layout = layoutOf(spec);
  const mail = new Mailroom();
  const states: ShardState[] = [];
  const residents: ResidentState<V>[] = [];
  const runners = Array.from({ length: workers }, (_, worker) => {
    const membership = { generation: 1, worker, workers };
    const state = allocateState(spec, membership);
    states.push(state);
    for (const unit of layout.units) {
      const { start, end } = shardOf(unit.elements, worker, workers);
      state.student[unit.name]?.set(initialUnit(spec, unit).subarray(start, end));
      state.teacher[unit.name]?.set(initialUnit(spec, unit).subarray(start, end));
    }
    const resident = residentState(vectors, state);
    residents.push(resident);
    return new StepRunner({
      spec,
      membership,
      state: resident.state,
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
        const { start, end } = ranksOf(spec.logicalRanks, worker, workers);
        const batches = Array.from({ length: end - start }, (_, i) =>
          batchOf(spec, step, start + i),
        );
        return runner.compute(step, spec.exchange.initialScale, batches);
      }),
    );
    const gradNorm = normsOf(spec, reports);
    text.push(
      JSON.stringify({ step, losses: reports.flatMap((report) => report.losses), gradNorm }),
    );
    for (const runner of runners) runner.update(step, gradNorm);
  }
  for (const resident of residents) {
    resident.sync();
    resident.close();
  }
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

/** What the coordinator does with norm roots. */
function normsOf(spec: RunSpec, reports: readonly StepReport[]): Record<string, number> {
  const roots = new Map(
    reports
      .flatMap((r) => r.normRoots)
      .map((root) => [`${root.unit} ${root.start} ${root.end}`, root.sum]),
  );
  const squares: Record<string, number> = {};
  for (const unit of layoutOf(spec).units) {
    const sum = sumTree(
      { start: 0, end: chunksIn(unit.elements) },
      (node) => roots.get(`${unit.name} ${node.start} ${node.end}`),
      (a, b) => a + b,
    );
    squares[unit.submodule] = (squares[unit.submodule] ?? 0) + sum;
  }
  return Object.fromEntries(Object.entries(squares).map(([name, sum]) => [name, Math.sqrt(sum)]));
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

describe("with state in the library's memory, as on a GPU", () => {
  let engine: Engine | undefined;
  beforeAll(async () => {
    const options = { name: "torch", threads: 1, device: "cpu", vectors: "library" } as const;
    engine = await openEngine(options).catch(() => undefined);
  });
  afterAll(async () => {
    await tf.setBackend("wasm");
  });

  test.each(["fp32", "fp16"] as const)("%s exchange: 1 to 4 workers agree", async (dtype) => {
    if (!engine?.vectors) return;
    const spec = specOf(dtype);
    const host = await train(spec, 1, hostVectors(engine.flat ?? referenceFlatMath));
    const one = await train(spec, 1, engine.vectors);
    // The same arithmetic but for the order of roundings in AdamW, EMA and norms: a few float32 ulps a step.
    for (const [unit, values] of one.student) {
      const wanted = host.student.get(unit) as Float32Array;
      const worst = values.reduce(
        (most, x, i) => Math.max(most, Math.abs(x - (wanted[i] ?? 0))),
        0,
      );
      expect(worst, unit).toBeLessThan(dtype === "fp32" ? 1e-4 : 2e-3);
    }
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
