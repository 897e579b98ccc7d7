import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { PaddockError } from "@paddock/contract";
import { afterAll, afterEach, expect, test } from "vitest";
import { type BadImage, makeRankBatch, type RankBatch } from "../batch.js";
import { type DatasetSource, openDataset } from "../datasets/open-dataset.js";
import { makeFolder, writeIdxSet } from "../testing/images.js";
import { greySpec } from "../testing/spec.js";
import { type BatchJob, type Lane, threadLane } from "./lane.js";
import { type BatchPool, poolOf, startBatchPool } from "./pool.js";

const { folder, remove } = makeFolder();
afterAll(remove);
writeIdxSet(folder, 40);
const spec = greySpec({ data: { kind: "idx", path: folder } });

const pools: BatchPool[] = [];
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close()));
});

function kept(pool: BatchPool): BatchPool {
  pools.push(pool);
  return pool;
}

/** Lanes that make empty batches when told to, and note what they are asked for. */
function manualLanes(count: number) {
  const asked: string[] = [];
  const open: {
    job: BatchJob;
    finish: (bad?: readonly BadImage[]) => void;
    fail: (error: Error) => void;
  }[] = [];
  const lane: Lane = {
    run: (job) =>
      new Promise((resolve, reject) => {
        asked.push(`${job.step}/${job.rank}`);
        const batch = (badImages: readonly BadImage[]): RankBatch => ({
          rank: job.rank,
          globalCrops: new Float32Array(),
          localCrops: null,
          gramCrops: null,
          maskRows: new Int32Array(),
          maskWeights: new Float32Array(),
          sampleIds: [1, 2],
          badImages,
        });
        open.push({ job, finish: (bad = []) => resolve(batch(bad)), fail: reject });
      }),
    close: async () => undefined,
  };
  return { lanes: Array.from({ length: count }, () => lane), asked, open };
}

/** Lets everything that is ready run. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test("a pool gives the same batches as makeRankBatch, in the order of the request", async () => {
  const pool = kept(await startBatchPool({ spec, threads: 2, inProcess: true }));
  const dataset = await openDataset(spec.data, "train");
  for (const step of [0, 1, 7]) {
    const batches = await pool.request(step, [2, 0]);
    expect(batches).toEqual([
      await makeRankBatch(dataset, spec, step, 2),
      await makeRankBatch(dataset, spec, step, 0),
    ]);
  }
});

test("following steps are prefetched, no further than allowed and not beyond the run", async () => {
  const { lanes, asked, open } = manualLanes(1);
  const pool = kept(poolOf(lanes, 4, 2));
  const first = pool.request(1, [0, 1]);
  for (let i = 0; i < 6; i++) {
    open[i]?.finish();
    await settle();
  }
  expect((await first).map((batch) => batch.rank)).toEqual([0, 1]);
  expect(asked).toEqual(["1/0", "1/1", "2/0", "2/1", "3/0", "3/1"]);
  expect(pool.stats()).toMatchObject({ batches: 6, images: 12, waits: 2, prefetched: 4 });
  await pool.request(2, [0, 1]);
  expect(pool.stats()).toMatchObject({ waits: 2, prefetched: 2 });
  expect(asked).toHaveLength(6);
});

test("what is asked for goes before what is prefetched, and what became unlikely is dropped", async () => {
  const { lanes, asked, open } = manualLanes(1);
  const pool = kept(poolOf(lanes, 100, 2));
  const first = pool.request(0, [0]);
  open[0]?.finish();
  await first;
  await settle(); // 1/0 is running, 2/0 waits
  const other = pool.request(9, [3]);
  open[1]?.finish();
  await settle();
  open[2]?.finish();
  expect((await other)[0]?.rank).toBe(3);
  await settle();
  expect(asked).toEqual(["0/0", "1/0", "9/3", "10/3"]);
  expect(pool.stats().prefetched).toBe(2);
});

test("a rank that joins goes before guesses about the others", async () => {
  const { lanes, asked, open } = manualLanes(1);
  const pool = kept(poolOf(lanes, 100, 2));
  const first = pool.request(0, [0]);
  open[0]?.finish();
  await first;
  await settle(); // 1/0 is running, 2/0 waits
  const second = pool.request(1, [0, 1]);
  open[1]?.finish();
  await settle();
  open[2]?.finish();
  await second;
  expect(asked.slice(0, 3)).toEqual(["0/0", "1/0", "1/1"]);
});

test("released memory is written again, and nothing else is", async () => {
  const pool = kept(await startBatchPool({ spec, threads: 1, inProcess: true, prefetchSteps: 0 }));
  const first = await pool.request(0, [0]);
  const kept0 = structuredClone(first[0]?.globalCrops.slice());
  const second = await pool.request(1, [0]);
  expect(second[0]?.globalCrops.buffer).not.toBe(first[0]?.globalCrops.buffer);
  expect(first[0]?.globalCrops).toEqual(kept0);
  pool.release(second);
  const third = await pool.request(2, [0]);
  expect(third[0]?.globalCrops.buffer).toBe(second[0]?.globalCrops.buffer);
  expect(third[0]?.localCrops?.buffer).toBe(second[0]?.localCrops?.buffer);
  expect(third).toEqual([await makeRankBatch(await openDataset(spec.data, "train"), spec, 2, 0)]);
});

test("a step can be asked for again", async () => {
  const pool = kept(await startBatchPool({ spec, threads: 1, inProcess: true, prefetchSteps: 0 }));
  expect(await pool.request(3, [1])).toEqual(await pool.request(3, [1]));
});

test("data that is left out is used by no later request, also if it was prefetched", async () => {
  const pool = kept(await startBatchPool({ spec, threads: 1, inProcess: true, prefetchSteps: 2 }));
  const dataset = await openDataset(spec.data, "train");
  await pool.request(0, [0]);
  pool.leaveOut([{ from: 1, to: 3 }]);
  const usual = await makeRankBatch(dataset, spec, 1, 0);
  const [batch] = await pool.request(1, [0]);
  expect(batch).toEqual(await makeRankBatch(dataset, spec, 1, 0, undefined, 3));
  expect(batch?.sampleIds).not.toEqual(usual.sampleIds);
  // Masks go by the step, not by the data.
  expect(batch?.maskRows).toEqual(usual.maskRows);
  pool.leaveOut([]);
  expect(await pool.request(1, [0])).toEqual([usual]);
});

test("a request that is open when data is left out, and the same one after it, are both answered", async () => {
  const { lanes, open } = manualLanes(1);
  const pool = kept(poolOf(lanes, 100, 0));
  const before = pool.request(5, [0]);
  pool.leaveOut([{ from: 2, to: 4 }]);
  const after = pool.request(5, [0]);
  open[0]?.finish();
  expect(await before).toHaveLength(1);
  await settle();
  open[1]?.finish();
  expect(await after).toHaveLength(1);
  expect(open.map(({ job }) => job.dataStep)).toEqual([5, 7]);
});

test("each bad image is reported once, and counted", async () => {
  const { lanes, open } = manualLanes(1);
  const reported: BadImage[] = [];
  const pool = kept(poolOf(lanes, 100, 0, (bad) => reported.push(bad)));
  const bad = [3, 5, 3].map((id) => ({ id, path: `${id}.jpg`, reason: "cut" }));
  for (let step = 0; step < 2; step++) {
    const request = pool.request(step, [0]);
    open[step]?.finish(bad);
    await request;
  }
  expect(reported.map((image) => image.path)).toEqual(["3.jpg", "5.jpg"]);
  expect(pool.stats().badImages).toBe(2);
});

test("a failure rejects its request, prefetched or not, and the pool goes on", async () => {
  const { lanes, open } = manualLanes(1);
  const pool = kept(poolOf(lanes, 100, 1));
  const first = pool.request(0, [0]);
  open[0]?.finish();
  await first;
  await settle();
  open[1]?.fail(new PaddockError("data-unavailable", "the disk is gone"));
  await settle();
  await expect(pool.request(1, [0])).rejects.toThrow("the disk is gone");
  await settle();
  open[2]?.finish();
  expect(await pool.request(2, [0])).toHaveLength(1);
});

test("closing rejects open requests and later ones", async () => {
  const { lanes } = manualLanes(1);
  const pool = poolOf(lanes, 100, 1);
  const request = pool.request(0, [0, 1]);
  await pool.close();
  await expect(request).rejects.toThrow(/received close\(\)/);
  await expect(pool.request(1, [0])).rejects.toThrow(/received close\(\)/);
});

test("a missing dataset fails the start of a pool", async () => {
  const lost = greySpec({ data: { kind: "idx", path: join(folder, "nowhere") } });
  await expect(startBatchPool({ spec: lost, threads: 1, inProcess: true })).rejects.toMatchObject({
    code: "data-unavailable",
  });
});

/** A lane on a real thread that runs the given program. */
function laneRunning(program: string, source: DatasetSource): Lane {
  const file = join(folder, `entry-${programs++}.mjs`);
  writeFileSync(file, `import { parentPort, workerData } from "node:worker_threads";\n${program}`);
  return threadLane(pathToFileURL(file), { spec, source });
}
let programs = 0;

test("a thread's failure comes back as the same error", async () => {
  const { source } = await openDataset(spec.data, "train");
  const program = `parentPort.on("message", ({ step }) =>
    parentPort.postMessage({ kind: "failed", code: "data-unavailable", message: "step " + step }));`;
  const lane = laneRunning(program, source);
  await expect(lane.run({ step: 4, rank: 0, dataStep: 4 })).rejects.toMatchObject({
    code: "data-unavailable",
    message: "step 4",
  });
  await lane.close();
});

test.each([
  ["throws", 'throw new Error("boom");', /a data thread failed: boom/],
  ["exits", "process.exit(7);", /a data thread ended with exit code 7/],
])("a thread that %s rejects its job and every later one", async (_, death, message) => {
  const { source } = await openDataset(spec.data, "train");
  const lane = laneRunning(`parentPort.on("message", () => { ${death} });`, source);
  await expect(lane.run({ step: 0, rank: 0, dataStep: 0 })).rejects.toThrow(message);
  await expect(lane.run({ step: 1, rank: 0, dataStep: 1 })).rejects.toThrow(message);
  await lane.close();
});

test("threads share the dataset's memory instead of copying it", async () => {
  const dataset = await openDataset(spec.data, "train");
  const program = `parentPort.on("message", () => {
    workerData.source.pixels[0] = 251;
    parentPort.postMessage({ kind: "failed", code: "internal", message: "written" });
  });`;
  const lane = laneRunning(program, dataset.source);
  await expect(lane.run({ step: 0, rank: 0, dataStep: 0 })).rejects.toThrow("written");
  expect((await dataset.load(0)).pixels[0]).toBe(251);
  await lane.close();
});
