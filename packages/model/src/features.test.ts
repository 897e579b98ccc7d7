import { layoutOf, parseRunSpec, rngOf } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { features, initialUnit, knn, viewUnit } from "./index.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

const spec = parseRunSpec({
  steps: 1,
  batchPerRank: 2,
  data: { path: "unused" },
  model: { width: 16, depth: 2, heads: 2, patchSize: 4, registers: 2 },
  crops: { global: { size: 16, scale: [0.3, 1] }, local: { size: 8, scale: [0.1, 0.3] } },
});
const layout = layoutOf(spec);

async function gather(name: string) {
  const unit = layout.units.find((candidate) => candidate.name === name);
  if (!unit) throw new RangeError(name);
  const flat = tf.tensor1d(initialUnit(spec, unit));
  const tensors = viewUnit(unit, flat);
  flat.dispose();
  return { tensors, release: () => tf.dispose(Object.values(tensors)) };
}

function imagesOf(count: number, size: number): Float32Array {
  const rng = rngOf(1);
  return Float32Array.from({ length: count * size * size * 3 }, () => rng.normal());
}

test("features of an image do not depend on its batch, and nothing is left over", async () => {
  const before = tf.memory().numTensors;
  const images = imagesOf(3, 16);
  const all = await features({
    spec,
    layout,
    gather,
    images,
    count: 3,
    size: 16,
    withAttention: true,
  });
  expect([all.cls.shape, all.patches.shape, all.attention?.shape]).toEqual([
    [3, 16],
    [3, 16, 16],
    [3, 2, 16],
  ]);
  const last = await features({
    spec,
    layout,
    gather,
    images: images.subarray(2 * 16 * 16 * 3),
    count: 1,
    size: 16,
  });
  const difference = tf.tidy(
    () => tf.max(tf.abs(tf.sub(tf.slice(all.cls, [2, 0]), last.cls))).dataSync()[0],
  );
  expect(difference).toBeLessThan(1e-5);
  tf.dispose([last.cls, last.patches]);
  expect(last.attention).toBeUndefined();
  const mass = tf.tidy(() => tf.sum(all.attention as tf.Tensor3D, 2).dataSync());
  for (const value of mass) {
    // What cls and registers do not take: near-uniform attention over 19 tokens at the start.
    expect(value).toBeGreaterThan(0.7);
    expect(value).toBeLessThan(1);
  }
  tf.dispose([all.cls, all.patches, all.attention as tf.Tensor3D]);
  expect(tf.memory().numTensors).toBe(before);
});

test("a model with rotary positions and a norm of its own for cls has features of any size", async () => {
  const before = tf.memory().numTensors;
  const model = { ...spec.model, positions: "rope", untieClsNorm: true } as const;
  const rotary = { ...spec, model: { ...model, rope: { ...spec.model.rope, rescale: 2 } } };
  const units = layoutOf(rotary).units;
  const read = async (name: string) => {
    const unit = units.find((candidate) => candidate.name === name);
    if (!unit) throw new RangeError(name);
    const flat = tf.tensor1d(initialUnit(rotary, unit));
    const tensors: Record<string, tf.Tensor> = { ...viewUnit(unit, flat) };
    flat.dispose();
    const own = tensors["backbone.cls_norm.bias"];
    if (own) tensors["backbone.cls_norm.bias"] = tf.add(own, 5);
    own?.dispose();
    return { tensors, release: () => tf.dispose(Object.values(tensors)) };
  };
  const args = { spec: rotary, layout: layoutOf(rotary), gather: read, count: 2 };
  const first = await features({ ...args, images: imagesOf(2, 24), size: 24 });
  const again = await features({ ...args, images: imagesOf(2, 24), size: 24 });
  expect(first.patches.shape).toEqual([2, 36, 16]);
  // Nothing moves coordinates here.
  expect(again.cls.dataSync()).toEqual(first.cls.dataSync());
  expect(tf.tidy(() => tf.mean(first.cls).dataSync()[0])).toBeCloseTo(5, 4);
  expect(tf.tidy(() => tf.mean(first.patches).dataSync()[0])).toBeCloseTo(0, 4);
  tf.dispose([first.cls, first.patches, again.cls, again.patches]);
  expect(tf.memory().numTensors).toBe(before);
});

test("features that fail half-way leave nothing behind", async () => {
  const before = tf.memory().numTensors;
  const failing = async (name: string) => {
    if (name === "norm") throw new Error("the peer is gone");
    return await gather(name);
  };
  const images = imagesOf(1, 16);
  const args = { spec, layout, gather: failing, images, count: 1, size: 16, withAttention: true };
  await expect(features(args)).rejects.toThrow("the peer is gone");
  expect(tf.memory().numTensors).toBe(before);
});

test("images of another size are taken with interpolated positions", async () => {
  const { cls, patches } = await features({
    spec,
    layout,
    gather,
    images: imagesOf(1, 24),
    count: 1,
    size: 24,
  });
  expect(patches.shape).toEqual([1, 36, 16]);
  tf.dispose([cls, patches]);
});

test("k-NN votes by similarity, and nothing is left over", async () => {
  const before = tf.memory().numTensors;
  const bank = Float32Array.from([1, 0, 0.9, 0.1, 0, 2, 0.1, 1, -1, 0]);
  const common = { bank, bankLabels: [0, 0, 1, 1, 2], dimension: 2, temperature: 0.07 };
  const queries = Float32Array.from([3, 0.2, 0, 5, -2, 0.1]);
  expect(await knn({ ...common, queries, queryLabels: [0, 1, 2], k: 3 })).toBe(1);
  expect(await knn({ ...common, queries, queryLabels: [1, 1, 2], k: 3, chunk: 2 })).toBeCloseTo(
    2 / 3,
  );
  // One very near neighbour outvotes two far ones: the vote is exponential in the similarity.
  const far = { bank: Float32Array.from([1, 0, 0, 1, 0, 1]), bankLabels: [0, 1, 1] };
  const one = { ...common, ...far, queries: Float32Array.of(1, 0.2), queryLabels: [0], k: 3 };
  expect(await knn(one)).toBe(1);
  expect(await knn({ ...one, temperature: 100 })).toBe(0);
  expect(tf.memory().numTensors).toBe(before);
});

test("k-NN agrees with sorting all similarities", async () => {
  const rng = rngOf(5);
  const random = (rows: number) => Float32Array.from({ length: rows * 8 }, () => rng.normal());
  const [bank, queries] = [random(200), random(40)];
  const bankLabels = Array.from({ length: 200 }, () => rng.below(4));
  const queryLabels = Array.from({ length: 40 }, () => rng.below(4));
  const unit = (x: Float32Array, row: number): number[] => {
    const values = [...x.subarray(row * 8, row * 8 + 8)];
    return values.map((value) => value / Math.hypot(...values));
  };
  const correct = queryLabels.filter((label, q) => {
    const nearest = bankLabels
      .map((of, b) => ({
        of,
        similarity: unit(bank, b).reduce((a, v, i) => a + v * (unit(queries, q)[i] as number), 0),
      }))
      .sort((a, b) => b.similarity - a.similarity)
      .slice(0, 20);
    const votes = [0, 0, 0, 0];
    for (const { of, similarity } of nearest) {
      votes[of] = (votes[of] as number) + Math.exp(similarity / 0.07);
    }
    return votes.indexOf(Math.max(...votes)) === label;
  });
  const options = { dimension: 8, k: 20, temperature: 0.07, chunk: 7 };
  const accuracy = await knn({ bank, queries, bankLabels, queryLabels, ...options });
  expect(accuracy).toBeCloseTo(correct.length / 40, 10);
});
