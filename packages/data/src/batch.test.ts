import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { resolutionAt } from "@paddock/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { makeCrops } from "./augment/crops.js";
import { type CropBuffers, makeRankBatch } from "./batch.js";
import type { Dataset } from "./datasets/dataset.js";
import { openDataset } from "./datasets/open-dataset.js";
import { BadImageError, withChannels } from "./image.js";
import { drawMasks } from "./masks.js";
import { positionOf, replacementId, sampleId } from "./sampler.js";
import { encoded, makeFolder, writeIdxSet } from "./testing/images.js";
import { greySpec } from "./testing/spec.js";

let folder: string;
let remove: () => void;
beforeEach(() => {
  ({ folder, remove } = makeFolder());
});
afterEach(() => remove());

async function idxImages(): Promise<Dataset> {
  writeIdxSet(folder, 50);
  return openDataset({ ...greySpec().data, path: folder }, "train");
}

test("a batch holds the crops of its samples, crop-major", async () => {
  const spec = greySpec();
  const dataset = await idxImages();
  const [step, rank, numImages] = [2, 1, 3];
  const batch = await makeRankBatch(dataset, spec, step, rank);
  expect(batch).toMatchObject({ rank, badImages: [] });
  expect(batch.globalCrops).toHaveLength(2 * numImages * 784);
  expect(batch.localCrops).toHaveLength(4 * numImages * 196);
  for (let b = 0; b < numImages; b++) {
    const position = positionOf(spec, step, rank, b);
    const id = sampleId(spec.seed, dataset.count, position);
    expect(batch.sampleIds[b]).toBe(id);
    const { global, local } = makeCrops(await dataset.load(id), spec, { seed: 0, position });
    global.forEach((crop, i) => {
      const row = i * numImages + b;
      expect(batch.globalCrops.slice(row * 784, (row + 1) * 784)).toEqual(crop);
    });
    local.forEach((crop, i) => {
      const row = i * numImages + b;
      expect(batch.localCrops?.slice(row * 196, (row + 1) * 196)).toEqual(crop);
    });
  }
  const masks = drawMasks(spec, step, rank);
  expect([batch.maskRows, batch.maskWeights]).toEqual([masks.maskRows, masks.maskWeights]);
});

test("batches lie in shared memory and are the same every time", async () => {
  const dataset = await idxImages();
  const first = await makeRankBatch(dataset, greySpec(), 5, 3);
  for (const array of [first.globalCrops, first.localCrops, first.maskRows, first.maskWeights]) {
    expect(array?.buffer).toBeInstanceOf(SharedArrayBuffer);
  }
  expect(await makeRankBatch(dataset, greySpec(), 5, 3)).toEqual(first);
});

test("ranks and steps see every sample once per pass", async () => {
  const dataset = await idxImages();
  const spec = greySpec({ batchPerRank: 5, logicalRanks: 5 });
  const ids = new Set<number>();
  for (const step of [0, 1]) {
    for (let rank = 0; rank < 5; rank++) {
      for (const id of (await makeRankBatch(dataset, spec, step, rank)).sampleIds) ids.add(id);
    }
  }
  expect(ids.size).toBe(50);
});

test("without local crops there is no array of them", async () => {
  const crops = { ...greySpec().crops, localCount: 0 };
  const batch = await makeRankBatch(await idxImages(), { ...greySpec(), crops }, 0, 0);
  expect(batch.localCrops).toBeNull();
});

test("colour files feed a grey model, and grey files a colour one", async () => {
  writeFileSync(
    join(folder, "a.png"),
    await encoded("png", { width: 40, height: 30, channels: 3 }),
  );
  const grey = greySpec({ data: { kind: "folder", path: folder } });
  const dataset = await openDataset(grey.data, "train");
  const batch = await makeRankBatch(dataset, grey, 0, 0);
  const image = withChannels(await dataset.load(0), 1);
  const { global } = makeCrops(image, grey, { seed: 0, position: 0 });
  expect(batch.globalCrops.slice(0, 784)).toEqual(global[0]);
  const colour = {
    ...grey,
    model: { ...grey.model, channels: 3 },
    crops: { ...grey.crops, mean: [0, 0, 0], std: [1, 1, 1] },
  };
  expect((await makeRankBatch(dataset, colour, 0, 0)).globalCrops).toHaveLength(6 * 784 * 3);
});

test("bad files are replaced deterministically and reported with path and reason", async () => {
  mkdirSync(join(folder, "c"));
  const good = await encoded("jpeg", { width: 30, height: 40, channels: 3 });
  for (let i = 0; i < 12; i++) {
    const bytes = i % 3 === 0 ? good.subarray(0, good.length >> 1) : good;
    writeFileSync(join(folder, "c", `${String(i).padStart(2, "0")}.jpg`), bytes);
  }
  const spec = greySpec({
    batchPerRank: 12,
    logicalRanks: 1,
    fleet: { workers: 1 },
    data: { kind: "folder", path: folder },
  });
  const dataset = await openDataset({ ...spec.data, path: folder }, "train");
  const batch = await makeRankBatch(dataset, spec, 0, 0);
  expect(new Set(batch.badImages.map((bad) => bad.id))).toEqual(new Set([0, 3, 6, 9]));
  for (const bad of batch.badImages) {
    expect(bad.path).toBe(dataset.describe(bad.id));
    expect(bad.reason).not.toBe("");
  }
  expect(batch.sampleIds.every((id) => id % 3 !== 0)).toBe(true);
  expect(batch.globalCrops.every(Number.isFinite)).toBe(true);
  expect(await makeRankBatch(dataset, spec, 0, 0)).toEqual(batch);
  const position = batch.sampleIds.findIndex(
    (_, b) => sampleId(spec.seed, 12, b) % 3 === 0 && replacementId(spec.seed, 12, b, 0) % 3 !== 0,
  );
  expect(batch.sampleIds[position]).toBe(replacementId(spec.seed, 12, position, 0));
});

test("a dataset of bad images only ends with a clear error", async () => {
  const broken: Dataset = {
    count: 9,
    classes: null,
    label: () => null,
    describe: (id) => `bad-${id}`,
    load: async (id) => {
      throw new BadImageError(`bad-${id}`, "Input buffer has corrupt header");
    },
  };
  const making = makeRankBatch(broken, greySpec(), 0, 0);
  await expect(making).rejects.toMatchObject({ code: "data-unavailable" });
  await expect(making).rejects.toThrow(/64 bad ones in a row, the last being bad-\d: Input buffer/);
});

test("channel counts that no file has are refused", async () => {
  const spec = { ...greySpec(), model: { ...greySpec().model, channels: 4 } };
  await expect(makeRankBatch(await idxImages(), spec, 0, 0)).rejects.toThrow(
    /model.channels: expected 1 \(grey\) or 3 \(RGB\)/,
  );
});

const severalSizes = greySpec({
  model: { channels: 1, patchSize: 7, positions: "rope", heads: 3 },
  crops: {
    ...greySpec().crops,
    resolutions: [
      { global: 28, local: 14, gram: 42, ratio: 0.5 },
      { global: 56, local: 21, gram: 28, ratio: 0.5 },
    ],
  },
});

test("sizes vary between steps, are the same on all ranks, and memory of one step serves every other", async () => {
  const dataset = await idxImages();
  const steps = [0, 1, 2, 3, 4, 5];
  const sizes = steps.map((step) => resolutionAt(severalSizes, step).global);
  expect(new Set(sizes)).toEqual(new Set([28, 56]));
  let buffers: CropBuffers | undefined;
  for (const step of steps) {
    const { global, local, gram } = resolutionAt(severalSizes, step);
    for (const rank of [0, 3]) {
      const fresh = await makeRankBatch(dataset, severalSizes, step, rank);
      expect(fresh.globalCrops).toHaveLength(6 * global ** 2);
      expect(fresh.localCrops).toHaveLength(12 * local ** 2);
      expect(fresh.gramCrops).toHaveLength(6 * (gram ?? 0) ** 2);
      expect(Math.max(...fresh.maskRows)).toBeLessThan(6 * (global / 7) ** 2);
      const reused = await makeRankBatch(dataset, severalSizes, step, rank, buffers);
      if (buffers) expect(reused.globalCrops.buffer).toBe(buffers.globalCrops.buffer);
      expect(reused).toEqual(fresh);
      buffers = reused;
    }
  }
});

test("gram crops stand in the order of the global crops", async () => {
  const dataset = await idxImages();
  const crops = { ...greySpec().crops, gramSize: 28 };
  const batch = await makeRankBatch(dataset, { ...greySpec(), crops }, 0, 1);
  expect(batch.gramCrops).toEqual(batch.globalCrops);
});
