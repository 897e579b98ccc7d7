import { rngOf } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { type GramOptions, gramLoss, gramPatches, resizePatches } from "./gram.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

function random(shape: [number, number, number], key: number): tf.Tensor3D {
  const rng = rngOf(11, key);
  const values = Float32Array.from({ length: shape[0] * shape[1] * shape[2] }, () => rng.normal());
  return tf.tensor3d(values, shape);
}

/** In doubles, by the definition: loss and gradient of 0.5 * loss, found by moving each value a little. */
function reference(student: tf.Tensor3D, teacher: tf.Tensor3D, imageLevel: boolean) {
  const [images, patches, width] = student.shape;
  const rows = imageLevel ? patches : images * patches;
  const theirs = [...teacher.dataSync()];
  const dot = (x: readonly number[], a: number, b: number): number => {
    let sum = 0;
    for (let c = 0; c < width; c++) sum += at(x, a * width + c) * at(x, b * width + c);
    return sum;
  };
  const lossOf = (ours: readonly number[]): number => {
    let [sum, count] = [0, 0];
    for (let a = 0; a < images * patches; a++) {
      const first = Math.floor(a / rows) * rows;
      for (let b = first; b < first + rows; b++) {
        sum += (dot(ours, a, b) - dot(theirs, a, b)) ** 2;
        count++;
      }
    }
    return sum / count;
  };
  const values = [...student.dataSync()];
  const moved = (i: number, by: number) =>
    lossOf(values.map((value, j) => (j === i ? value + by : value)));
  return {
    loss: lossOf(values),
    gradient: values.map((_, i) => (0.5 * (moved(i, 1e-4) - moved(i, -1e-4))) / 2e-4),
  };
}

function at(values: readonly number[], index: number): number {
  return values[index] as number;
}

const raw: GramOptions = { normalized: false, imageLevel: true, negatives: "keep" };

test.each([
  { imageLevel: true, perBlock: 1000, blocks: "all at once" },
  { imageLevel: true, perBlock: 2 * 25, blocks: "two images, then one" },
  { imageLevel: true, perBlock: 2 * 5 + 1, blocks: "two rows of an image, and again, then one" },
  { imageLevel: false, perBlock: 1000, blocks: "the whole batch" },
  { imageLevel: false, perBlock: 4 * 15, blocks: "four rows of the batch at a time" },
  { imageLevel: false, perBlock: 1, blocks: "row by row" },
])("similarities are complete in any blocks: $blocks", ({ imageLevel, perBlock }) => {
  const before = tf.memory().numTensors;
  const [student, teacher] = [random([3, 5, 2], 1), random([3, 5, 2], 2)];
  const { loss, dx } = gramLoss(student, teacher, { ...raw, imageLevel }, 0.5, perBlock);
  const expected = reference(student, teacher, imageLevel);
  expect(loss.dataSync()[0]).toBeCloseTo(expected.loss, 4);
  const gradient = dx.dataSync();
  for (const [i, value] of expected.gradient.entries()) expect(gradient[i]).toBeCloseTo(value, 3);
  tf.dispose([student, teacher, loss, dx]);
  expect(tf.memory().numTensors).toBe(before);
});

test("without any patch loss and gradient are zero", () => {
  const none = tf.zeros<tf.Rank.R2>([0, 4]);
  const { loss, dx } = gramLoss(none, none, { ...raw, imageLevel: false }, 1);
  expect([loss.dataSync()[0], dx.shape]).toEqual([0, [0, 4]]);
});

test("similarities within images need patches by image", () => {
  const rows = tf.zeros<tf.Rank.R2>([4, 2]);
  expect(() => gramLoss(rows, rows, raw, 1)).toThrow("patches by image");
});

test("patches take part by their mask", () => {
  const masked = Int32Array.of(1, 4);
  expect(gramPatches("all", masked, 6)).toBeNull();
  expect([...(gramPatches("masked", masked, 6) ?? [])]).toEqual([1, 4]);
  expect([...(gramPatches("unmasked", masked, 6) ?? [])]).toEqual([0, 2, 3, 5]);
});

test("patches of the student's own grid stay as they are; a ramp keeps its slope on a coarser grid", () => {
  const before = tf.memory().numTensors;
  const ramp = tf.tidy(() =>
    tf.tensor3d(
      Array.from({ length: 36 }, (_, i) => i % 6),
      [1, 36, 1],
    ),
  );
  const options = { resize: "bilinear", antialias: false } as const;
  const same = resizePatches(ramp, 6, 6, options);
  expect([...same.dataSync()]).toEqual([...ramp.dataSync()]);
  const coarse = resizePatches(ramp, 6, 3, options);
  expect([...coarse.dataSync()].slice(0, 3)).toEqual([0.5, 2.5, 4.5]);
  tf.dispose([ramp, same, coarse]);
  expect(tf.memory().numTensors).toBe(before);
});
