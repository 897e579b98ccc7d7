import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { Dataset } from "./datasets/dataset.js";
import { openDataset } from "./datasets/open-dataset.js";
import { evaluationImages, loadEvaluationBatch, renderView } from "./evaluation.js";
import { BadImageError, type Image } from "./image.js";
import { distance } from "./testing/distance.js";
import { encoded, makeFolder, pattern } from "./testing/images.js";
import { greySpec } from "./testing/spec.js";

const { folder, remove } = makeFolder();
afterAll(remove);

function datasetOf(images: readonly Image[]): Dataset {
  return {
    count: images.length,
    classes: ["a", "b"],
    label: (id) => id % 2,
    describe: (id) => `#${id}`,
    load: async (id) => images[id] as Image,
  };
}

test("a subset is distinct, ascending, fixed by its seed, and grows without losing members", () => {
  const ids = evaluationImages({ count: 1000 }, { count: 60, seed: 3 });
  expect(new Set(ids).size).toBe(60);
  expect([...ids]).toEqual([...ids].sort((a, b) => a - b));
  expect(ids.every((id) => 0 <= id && id < 1000)).toBe(true);
  expect(evaluationImages({ count: 1000 }, { count: 60, seed: 3 })).toEqual(ids);
  expect(evaluationImages({ count: 1000 }, { count: 60, seed: 4 })).not.toEqual(ids);
  const more = new Set(evaluationImages({ count: 1000 }, { count: 200, seed: 3 }));
  expect(ids.every((id) => more.has(id))).toBe(true);
});

test("0 and too many mean all", () => {
  const all = [0, 1, 2, 3];
  expect([...evaluationImages({ count: 4 }, { count: 0, seed: 1 })]).toEqual(all);
  expect([...evaluationImages({ count: 4 }, { count: 9, seed: 1 })]).toEqual(all);
});

test("images of the crop's size are normalised and otherwise untouched", async () => {
  const spec = greySpec();
  const images = [0, 1].map(
    (i): Image => ({ width: 28, height: 28, channels: 1, pixels: pattern(28, 28, 1, i) }),
  );
  const batch = await loadEvaluationBatch(datasetOf(images), [1, 0], spec);
  expect([...batch.labels]).toEqual([1, 0]);
  const wanted = [1, 0].flatMap((i) =>
    [...pattern(28, 28, 1, i)].map((v) => (v / 255 - 0.5) / 0.25),
  );
  expect(distance(batch.images, wanted).max).toBeLessThan(1e-5);
});

test("other images are resized to 256/224 on the shorter side and cut centrally", () => {
  // A ramp along x: the view must see its middle, with the slope of the resize.
  const [width, height, size] = [200, 100, 28];
  const pixels = Uint8Array.from({ length: width * height }, (_, i) => i % width);
  const out = new Float32Array(size * size);
  renderView({ width, height, channels: 1, pixels }, size, out);
  const scale = width / 64; // 28 * 256 / 224 = 32 rows, 64 columns
  for (let x = 0; x < size; x++) {
    expect(out[5 * size + x]).toBeCloseTo((18 + x + 0.5) * scale - 0.5, 1);
  }
  const tall = new Float32Array(size * size);
  const turned = Uint8Array.from({ length: width * height }, (_, i) => Math.floor(i / height));
  renderView({ width: height, height: width, channels: 1, pixels: turned }, size, tall);
  expect(tall[3 * size]).toBeCloseTo((18 + 3 + 0.5) * scale - 0.5, 1);
});

test("a bad image is replaced, with the label of its replacement", async () => {
  const images: Image[] = [0, 1, 2, 3].map((i) => ({
    width: 28,
    height: 28,
    channels: 1,
    pixels: pattern(28, 28, 1, i),
  }));
  const good = datasetOf(images);
  const dataset: Dataset = {
    ...good,
    label: (id) => id,
    load: (id) => (id === 2 ? Promise.reject(new BadImageError("#2", "broken")) : good.load(id)),
  };
  const batch = await loadEvaluationBatch(dataset, [2, 1], greySpec());
  expect(batch.badImages).toEqual([
    { id: 2, path: "#2", reason: "broken" },
    ...batch.badImages.slice(1),
  ]);
  const label = batch.labels[0] as number;
  expect([0, 1, 3]).toContain(label);
  const alone = await loadEvaluationBatch(dataset, [label], greySpec());
  expect(batch.images.slice(0, 784)).toEqual(alone.images);
});

test("unlabelled images have label -1", async () => {
  writeFileSync(
    join(folder, "x.png"),
    await encoded("png", { width: 50, height: 40, channels: 1 }),
  );
  const dataset = await openDataset({ ...greySpec().data, kind: "folder", path: folder }, "train");
  const batch = await loadEvaluationBatch(dataset, [0], greySpec());
  expect([...batch.labels]).toEqual([-1]);
  expect(batch.images).toHaveLength(784);
});
