/** What is planned is what is allocated, gathered, sent and saved. */
import { createRequire } from "node:module";
import { dirname } from "node:path";
import {
  parseRunSpec,
  type RankCuts,
  type RunSpec,
  type RunSpecInput,
  ranksOfCut,
  rngOf,
  stateKinds,
} from "@paddock/contract";
import { hostVectors, initialCenters, type RankBatch, referenceFlatMath } from "@paddock/model";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { footprintOf } from "./footprint.js";
import { residentState } from "./resident-state.js";
import { allocateShards } from "./shards.js";
import { stateBytes } from "./state.js";
import { shardFileOf } from "./state-io.js";
import { type StepHost, StepRunner } from "./step.js";
import { Mailroom } from "./testing/mailroom.js";

beforeAll(async () => {
  const wasm = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(`${dirname(wasm)}/`);
  await tf.setBackend("wasm");
});

const smallHead = { prototypes: 32, bottleneck: 8, hidden: 16, layers: 2 };

function specOf(changes: Partial<RunSpecInput> = {}): RunSpec {
  return parseRunSpec({
    steps: 5,
    logicalRanks: 5,
    batchPerRank: 2,
    model: { width: 24, depth: 2, heads: 2, patchSize: 4, channels: 1 },
    heads: { dino: smallHead },
    data: { path: "unused" },
    crops: {
      global: { size: 16, scale: [0.4, 1] },
      local: { size: 8, scale: [0.1, 0.4] },
      localCount: 2,
      mean: [0],
      std: [1],
    },
    ...changes,
  });
}

function batchOf(spec: RunSpec, rank: number): RankBatch {
  const rng = rngOf(99, 0, rank);
  const pixels = (count: number, side: number): Float32Array =>
    Float32Array.from({ length: count * side * side }, () => rng.normal());
  return {
    rank,
    globalCrops: pixels(2 * spec.batchPerRank, 16),
    localCrops: pixels(2 * spec.batchPerRank, 8),
    maskRows: Int32Array.of(1, 2, 5, 20),
    maskWeights: Float32Array.of(1 / 3, 1 / 3, 1 / 3, 1),
  };
}

interface Seen {
  gathered: number;
  gradientsSent: number;
  gradientsReceived: number;
  shadowSent: number;
  shadowReceived: number;
}

/** Notes how many bytes go over it. Sums of losses are not planned. */
function counted(host: StepHost, worker: number, seen: Seen): StepHost {
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  return {
    ...host,
    fetchUnit: (step, request) => {
      seen.gathered += sum(request.expectedBytes.filter((_, peer) => peer !== worker));
      return host.fetchUnit(step, request);
    },
    allToAll: (step, key, outgoing, expected) => {
      const [sent, received] = [sum(outgoing.map(({ byteLength }) => byteLength)), sum(expected)];
      if (key.startsWith("grad.")) {
        seen.gradientsSent += sent;
        seen.gradientsReceived += received;
      } else if (key === "shadow") {
        seen.shadowSent += sent;
        seen.shadowReceived += received;
      }
      return host.allToAll(step, key, outgoing, expected);
    },
  };
}

const onHost = hostVectors(referenceFlatMath);

/** One step of a fleet. What each worker has allocated, gathered and sent. */
async function stepOf(spec: RunSpec, workers: number, cuts: RankCuts) {
  const mail = new Mailroom();
  const isShadowed = spec.fleet.redundancy === "shadow" && workers > 1;
  const fleet = Array.from({ length: workers }, (_, worker) => {
    const membership = { generation: 1, worker, workers, cuts };
    const shards = allocateShards(
      spec,
      membership,
      isShadowed ? (worker + workers - 1) % workers : -1,
    );
    const { state, shadow } = shards;
    const seen: Seen = {
      gathered: 0,
      gradientsSent: 0,
      gradientsReceived: 0,
      shadowSent: 0,
      shadowReceived: 0,
    };
    const runner = new StepRunner({
      spec,
      membership,
      state: residentState(onHost, state).state,
      shadow: shadow && {
        worker: shadow.worker,
        state: residentState(onHost, shadow.state).state,
      },
      centers: initialCenters(spec),
      vectors: onHost,
      host: counted(mail.hostOf(worker, workers), worker, seen),
      now: () => performance.now(),
    });
    return { shards, seen, runner };
  });
  for (const [worker, { runner }] of fleet.entries()) {
    mail.published.set(String(worker), runner.encodeWeights());
  }
  const reports = await Promise.all(
    fleet.map(({ runner }, worker) => {
      const { start, end } = ranksOfCut(cuts, worker);
      const ranks = Array.from({ length: end - start }, (_, i) => start + i);
      return runner.compute(
        0,
        1,
        ranks.map((rank) => batchOf(spec, rank)),
      );
    }),
  );
  return fleet.map(({ shards, seen }, worker) => ({
    shards,
    seen,
    gathered: reports[worker]?.peakGatheredBytes,
    published: [...(mail.published.get(String(worker))?.values() ?? [])],
  }));
}

const gram = { loss: { gram: { teacher: "frozen" } } } as const;

test.each([
  ["one worker", {}, [0, 5]],
  ["two workers, fp16", {}, [0, 2, 5]],
  ["three workers, fp32", { exchange: { dtype: "fp32" } }, [0, 1, 3, 5]],
  ["unequal cuts, shadows", { fleet: { redundancy: "shadow" } }, [0, 3, 4, 5]],
  ["a frozen gram teacher", gram, [0, 2, 5]],
  [
    "a head for iBOT",
    { heads: { dino: smallHead, ibot: { ...smallHead, prototypes: 48 } } },
    [0, 2, 5],
  ],
] as [string, Partial<RunSpecInput>, RankCuts][])(
  "%s: planned bytes are those of a step",
  async (_, changes, cuts) => {
    const spec = specOf(changes);
    const workers = cuts.length - 1;
    const measured = await stepOf(spec, workers, cuts);
    for (const [worker, { shards, seen, gathered, published }] of measured.entries()) {
      const planned = footprintOf(spec, worker, workers, cuts);
      const { state, shadow, layout, membership } = shards;
      for (const kind of stateKinds) {
        const bytes = Object.values(state[kind]).reduce((sum, shard) => sum + shard.byteLength, 0);
        expect(planned.stateBytes[kind], kind).toBe(bytes);
      }
      if (shadow) expect(planned.shadowBytes).toBe(stateBytes(shadow.state));
      expect(planned.gatheredBytes).toBe(gathered);
      const file = { directory: "", step: 0, membership, layout, state, centers: null, spec };
      const saved = shardFileOf(file).entries.reduce((sum, { data }) => sum + data.byteLength, 0);
      expect(planned.checkpointBytes).toBe(saved);
      const publishedBytes = published.reduce((sum, { byteLength }) => sum + byteLength, 0);
      const { weights, gradients, shadow: copies } = planned.traffic;
      expect(planned.publishedBytes).toBe(workers > 1 ? publishedBytes : 0);
      expect(weights).toEqual({
        sentBytes: workers > 1 ? publishedBytes : 0,
        receivedBytes: seen.gathered,
      });
      expect(gradients).toEqual({
        sentBytes: seen.gradientsSent,
        receivedBytes: seen.gradientsReceived,
      });
      const sent = { sentBytes: seen.shadowSent, receivedBytes: seen.shadowReceived };
      if (shadow) expect(copies).toEqual(sent);
    }
  },
);

test("a shadow's traffic is one value of the exchange dtype per parameter, over all workers", () => {
  const spec = specOf();
  const all = [0, 1, 2].map((worker) => footprintOf(spec, worker, 3));
  const elements = all.reduce((sum, { shardElements }) => sum + shardElements, 0);
  const sent = all.reduce((sum, { traffic }) => sum + traffic.shadow.sentBytes, 0);
  expect(sent).toBe(2 * elements);
});

test("through collectives every visit is sent to every peer: what one sends another receives", () => {
  const spec = specOf({ exchange: { kind: "collective" } });
  for (const workers of [2, 3, 5]) {
    const all = Array.from({ length: workers }, (_, worker) => footprintOf(spec, worker, workers));
    for (const part of ["weights", "gradients", "shadow"] as const) {
      const sum = (which: "sentBytes" | "receivedBytes") =>
        all.reduce((total, { traffic }) => total + traffic[part][which], 0);
      expect(sum("sentBytes"), part).toBe(sum("receivedBytes"));
    }
  }
});
