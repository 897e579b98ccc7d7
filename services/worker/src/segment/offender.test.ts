/** A value that is not finite is traced to the logical rank that had it first, whatever the number of workers. */
import { createRequire } from "node:module";
import { dirname } from "node:path";
import {
  evenCuts,
  layoutOf,
  parseRunSpec,
  type RunSpec,
  type RunSpecInput,
  ranksOfCut,
  rngOf,
  shardOf,
} from "@paddock/contract";
import {
  hostVectors,
  initialCenters,
  initialUnit,
  type RankBatch,
  type RankLosses,
  referenceFlatMath,
} from "@paddock/model";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { OffenderWatch, type Seen } from "./offender.js";
import { poisonOf, withSamples } from "./offender-samples.js";
import { residentState } from "./resident-state.js";
import { allocateShards } from "./shards.js";
import { StepRunner } from "./step.js";
import { Mailroom } from "./testing/mailroom.js";

beforeAll(async () => {
  const wasm = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(`${dirname(wasm)}/`);
  await tf.setBackend("wasm");
});

function specOf(changes: Partial<RunSpecInput> = {}): RunSpec {
  return parseRunSpec({
    steps: 5,
    logicalRanks: 4,
    batchPerRank: 2,
    model: { width: 16, depth: 1, heads: 2, patchSize: 4, channels: 1 },
    heads: { dino: { prototypes: 32, bottleneck: 8, hidden: 16, layers: 2 } },
    data: { path: "unused" },
    crops: {
      global: { size: 16, scale: [0.4, 1] },
      local: { size: 8, scale: [0.1, 0.4] },
      localCount: 2,
      mean: [0],
      std: [1],
    },
    exchange: { dtype: "fp32", initialScale: 1 },
    ...changes,
  });
}

/** Of samples 2r and 2r + 1 for rank r. */
function batchOf(spec: RunSpec, rank: number) {
  const rng = rngOf(99, rank);
  const pixels = (count: number, side: number): Float32Array =>
    Float32Array.from({ length: count * side * side }, () => rng.normal());
  return {
    rank,
    sampleIds: [2 * rank, 2 * rank + 1],
    globalCrops: pixels(2 * spec.batchPerRank, 16),
    localCrops: pixels(2 * spec.batchPerRank, 8),
    maskRows: Int32Array.of(1, 2, 5, 20),
    maskWeights: Float32Array.of(1 / 3, 1 / 3, 1 / 3, 1),
  };
}

/** What each worker saw in step 0. */
async function seenBy(
  workers: number,
  spec: RunSpec,
  scale: number,
  spoil: (batches: RankBatch[]) => void = () => undefined,
): Promise<Seen[][]> {
  const layout = layoutOf(spec);
  const cuts = evenCuts(spec.logicalRanks, workers);
  const vectors = hostVectors(referenceFlatMath);
  const mail = new Mailroom();
  const runners = Array.from({ length: workers }, (_, worker) => {
    const membership = { generation: 1, worker, workers, cuts };
    const { state } = allocateShards(spec, membership, -1);
    for (const unit of layout.units) {
      const { start, end } = shardOf(unit.elements, worker, workers);
      state.student[unit.name]?.set(initialUnit(spec, unit).subarray(start, end));
      state.teacher[unit.name]?.set(initialUnit(spec, unit).subarray(start, end));
    }
    const host = mail.hostOf(worker, workers);
    const resident = residentState(vectors, state).state;
    const centers = initialCenters(spec);
    const now = () => performance.now();
    return new StepRunner({
      spec,
      membership,
      state: resident,
      shadow: null,
      centers,
      vectors,
      host,
      now,
    });
  });
  for (const [worker, runner] of runners.entries()) {
    mail.published.set(String(worker), runner.encodeWeights());
  }
  const reports = await Promise.all(
    runners.map((runner, worker) => {
      const { start, end } = ranksOfCut(cuts, worker);
      const batches = Array.from({ length: end - start }, (_, i) => batchOf(spec, start + i));
      spoil(batches);
      return runner.compute(0, scale, batches);
    }),
  );
  for (const runner of runners) runner.skip(0);
  expect(reports.some(({ finite }) => !finite)).toBe(
    reports.some(({ offenders }) => offenders.length > 0),
  );
  return reports.map(({ offenders }) => [...offenders]);
}

/** As the coordinator chooses: the smallest order, then rank, what belongs to all ranks last. */
function firstOf(seen: readonly Seen[][]): Seen | undefined {
  const late = ({ rank }: Seen) => (rank < 0 ? 99 : rank);
  return seen.flat().sort((a, b) => a.order - b.order || late(a) - late(b))[0];
}

test.each([
  [
    "Sinkhorn: the teacher's scores enter a sum first",
    { loss: { centering: "sinkhorn" } },
    /^sum /,
  ],
  ["centring: the centres are a sum too", { loss: { centering: "softmax" } }, /^(sum|loss) /],
] as const)(
  "%s; the spoilt sample's rank is named by 1 to 4 workers",
  async (_what, changes, tensor) => {
    const spec = specOf(changes);
    const spoil = poisonOf("5") as (batches: readonly RankBatch[]) => void;
    const tensors = tf.memory().numTensors;
    const first = firstOf(await seenBy(1, spec, 1, spoil));
    expect(first).toMatchObject({ rank: 2, tensor: expect.stringMatching(tensor) });
    for (const workers of [2, 3, 4]) {
      const seen = await seenBy(workers, spec, 1, spoil);
      expect(firstOf(seen)).toEqual(first);
    }
    expect(tf.memory().numTensors).toBe(tensors);
  },
);

test("a finite step names nothing", async () => {
  expect(await seenBy(2, specOf(), 1)).toEqual([[], []]);
});

test("a sum of finite gradients that overflows is named by parameter and belongs to no rank", async () => {
  const spec = specOf({ exchange: { dtype: "fp16", initialScale: 1 } });
  const names = layoutOf(spec).units.flatMap(({ parameters }) =>
    parameters.map(({ name }) => name),
  );
  const firstParameter = async (workers: number): Promise<string> => {
    const seen = (await seenBy(workers, spec, 2 ** 40)).flat();
    expect(seen.every(({ rank }) => rank === -1)).toBe(true);
    const order = Math.min(...seen.map((one) => one.order));
    const places = seen
      .filter((one) => one.order === order)
      .map(({ tensor }) => names.indexOf(tensor));
    expect(Math.min(...places)).toBeGreaterThanOrEqual(0);
    return names[Math.min(...places)] as string;
  };
  const one = await firstParameter(1);
  for (const workers of [2, 4]) expect(await firstParameter(workers)).toBe(one);
});

test("a rank's own gradient is named by unit, the first one in backward's order", async () => {
  const layout = layoutOf(specOf());
  const watch = new OffenderWatch(layout, [2, 3]);
  const [last, next] = layout.units.map(({ name }) => name).toReversed() as [string, string];
  const losses = [{ rank: 2, total: 1 }] as RankLosses[];
  const emit = (unit: string, rank: number, values: number[]) => {
    const flat = tf.tensor1d(values);
    watch.gradient(unit, rank, flat);
    flat.dispose();
  };
  const tensors = tf.memory().numTensors;
  emit(last, 2, [1, 2]);
  emit(last, 3, [1, Number.NEGATIVE_INFINITY]);
  emit(next, 2, [Number.NaN, 1]);
  expect(await watch.seen(losses)).toEqual([{ order: watch.placeOf(last), tensor: last, rank: 3 }]);
  expect(tf.memory().numTensors).toBe(tensors);
  // The step after it begins with nothing; one that is given up leaves nothing.
  emit(last, 2, [Number.NaN]);
  watch.reset();
  expect(await watch.seen(losses)).toEqual([]);
  expect(tf.memory().numTensors).toBe(tensors);
});

test("the samples are those of the rank, and of none for what all ranks make", () => {
  const spec = specOf();
  const batches = [2, 3].map((rank) => ({ ...batchOf(spec, rank), badImages: [] }));
  const seen = { order: 1, tensor: "loss koleo", rank: 3 };
  expect(withSamples(seen, batches as never)).toEqual({ ...seen, samples: [6, 7] });
  expect(withSamples({ ...seen, rank: -1 }, batches as never).samples).toEqual([]);
});

test("poison reaches both global crops of its samples and nothing else", () => {
  const batch = batchOf(specOf(), 1);
  const before = Float32Array.from(batch.globalCrops);
  poisonOf("3,77")?.([batch as never]);
  const rows = Array.from({ length: 4 }, (_, row) =>
    batch.globalCrops.subarray(row * 256, (row + 1) * 256),
  );
  expect(rows.map((row) => row.every(Number.isNaN))).toEqual([false, true, false, true]);
  expect(rows[0]).toEqual(before.subarray(0, 256));
  expect(poisonOf(undefined)).toBeUndefined();
});
