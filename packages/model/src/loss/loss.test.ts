import { parseRunSpec, rngOf } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import {
  applyPending,
  type Centers,
  centredSoftmax,
  initialCenters,
  launchMeans,
  readMeans,
} from "./centering.js";
import { groupKoleo, koleo } from "./koleo.js";
import { sinkhorn } from "./sinkhorn.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

const sumOf = async (_key: string, vectors: readonly Float32Array[]) =>
  vectors.reduce((a, b) => a.map((value, i) => value + (b[i] as number)));

function random(rows: number, columns: number, scale = 1): tf.Tensor2D {
  const rng = rngOf(rows, columns);
  const values = Float32Array.from({ length: rows * columns }, () => scale * rng.normal());
  return tf.tensor2d(values, [rows, columns]);
}

/** The official algorithm, in doubles: rescales the whole matrix, prototypes first. */
function reference(scores: number[][], temperature: number, iterations: number): number[][] {
  let q = scores.map((row) => row.map((value) => Math.exp(value / temperature)));
  const [rows, columns] = [q.length, (q[0] as number[]).length];
  const total = q.flat().reduce((a, b) => a + b, 0);
  q = q.map((row) => row.map((value) => value / total));
  for (let i = 0; i < iterations; i++) {
    const sums = Array.from({ length: columns }, (_, k) =>
      q.reduce((a, row) => a + (row[k] as number), 0),
    );
    q = q.map((row) => row.map((value, k) => value / (sums[k] as number) / columns));
    q = q.map((row) => row.map((value) => value / row.reduce((a, b) => a + b, 0) / rows));
  }
  return q.map((row) => row.map((value) => value * rows));
}

test("Sinkhorn over the rows of several ranks is the official algorithm over all rows", async () => {
  const before = tf.memory().numTensors;
  const all = tf.tidy(() => tf.clipByValue(random(9, 5, 0.5), -1, 1));
  const expected = reference(all.arraySync() as number[][], 0.06, 3);
  const ranks = [tf.slice(all, 0, 4), undefined, tf.slice(all, 4)] as (tf.Tensor2D | undefined)[];
  const other = [random(2, 3), random(1, 3), random(2, 3)];
  const [first, second] = await sinkhorn(
    [
      { scores: ranks, prototypes: 5, bound: 1 },
      { scores: other, prototypes: 3, bound: 1 },
    ],
    { temperature: 0.06, iterations: 3 },
    sumOf,
  );
  expect(first?.[1]).toBeUndefined();
  const found = [first?.[0], first?.[2]].flatMap((t) => t?.arraySync() as number[][]);
  for (const [n, row] of expected.entries()) {
    for (const [k, value] of row.entries()) {
      expect((found[n] as number[])[k]).toBeCloseTo(value, 5);
    }
  }
  for (const assigned of second ?? []) {
    for (const row of assigned?.arraySync() ?? []) {
      expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
    }
  }
  tf.dispose([...(first ?? []), ...(second ?? []), all].filter((t) => t !== undefined));
  expect(tf.memory().numTensors).toBe(before);
});

test("Sinkhorn neither overflows nor divides by zero with scores far beyond the official range", async () => {
  const [assigned] = await sinkhorn(
    [{ scores: [random(6, 4, 100)], prototypes: 4, bound: 300 }],
    { temperature: 0.04, iterations: 3 },
    sumOf,
  );
  const rows = assigned?.[0]?.arraySync() as number[][];
  for (const row of rows) expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
});

test("Sinkhorn frees its memory when a peer is lost", async () => {
  const before = tf.memory().numTensors;
  const lost = sinkhorn(
    [{ scores: [random(3, 2)], prototypes: 2, bound: 1 }],
    { temperature: 0.1, iterations: 1 },
    () => Promise.reject(new Error("lost")),
  );
  await expect(lost).rejects.toThrow("lost");
  expect(tf.memory().numTensors).toBe(before);
});

test("KoLeo of duplicate images is large but finite, and so is its gradient", () => {
  const x = tf.tensor2d([1, 2, 3, 4, 1, 2, 3, 4], [2, 4]);
  const { loss, dx } = koleo(x, 0.1);
  // Distance 1e-8 per component, plus 1e-8: the official epsilons.
  expect(loss.dataSync()[0]).toBeCloseTo(-Math.log(1e-8 * Math.sqrt(4) + 1e-8), 3);
  expect(dx.dataSync().every(Number.isFinite)).toBe(true);
});

test("a group's ranks share neighbours: the mean of their losses is that of one rank with all rows", () => {
  const before = tf.memory().numTensors;
  for (const topk of [1, 3]) {
    const x = random(8, 5);
    const one = koleo(x, 1, topk);
    const group = groupKoleo(x, 1, { topk, ranks: 4 });
    const losses = group.losses.map((loss) => loss.dataSync()[0] as number);
    expect(losses.reduce((a, b) => a + b, 0) / 4).toBeCloseTo(one.loss.dataSync()[0] as number, 5);
    expect(new Set(losses).size).toBe(4);
    const summed = [...one.dx.dataSync()].map((value) => 4 * value);
    for (const [i, value] of group.dx.dataSync().entries()) {
      expect(value).toBeCloseTo(summed[i] as number, 5);
    }
    expect([...group.neighbours.dataSync()]).toEqual([...one.neighbours.dataSync()]);
    tf.dispose([x, one.loss, one.dx, one.neighbours]);
    tf.dispose([group.dx, group.neighbours, ...group.losses]);
  }
  expect(tf.memory().numTensors).toBe(before);
});

test("the nearest k neighbours are found by distance, never the row itself", () => {
  const angles = [0, 10, 25, 90].map((degrees) => (degrees * Math.PI) / 180);
  const x = tf.tensor2d(angles.map((angle) => [2 * Math.cos(angle), 2 * Math.sin(angle)]));
  const { neighbours } = koleo(x, 1, 2);
  expect([...neighbours.dataSync()]).toEqual([1, 2, 0, 2, 1, 0, 2, 1]);
});

test("DINO's centre, updated after its use, and DINOv2's pending mean give the same targets", async () => {
  let [official, centers]: [Float32Array, Centers] = [
    new Float32Array(3),
    { dino: new Float32Array(3), ibot: null, pendingDino: null, pendingIbot: null },
  ];
  for (let step = 0; step < 4; step++) {
    const scores = tf.tidy(() => tf.add(random(4 + step, 3), step) as tf.Tensor2D);
    // DINO: use, then update in the same step.
    const expected = [...centredSoftmax(scores, official, 0.07).dataSync()];
    const mean = tf.mean(scores, 0).dataSync();
    official = official.map((value, k) => value * 0.9 + (mean[k] as number) * 0.1);
    // Here and in DINOv2: fold in what is pending, use, leave the new mean pending.
    centers = applyPending(centers, 0.9);
    const found = centredSoftmax(scores, centers.dino as Float32Array, 0.07).dataSync();
    const sizes = { dino: 3, ibot: 0, logicalRanks: 1 };
    const { dino } = await readMeans(launchMeans([scores], []), sizes, sumOf);
    centers = { ...centers, pendingDino: dino };
    for (const [i, value] of expected.entries()) expect(found[i]).toBeCloseTo(value, 5);
  }
  for (const [k, value] of (applyPending(centers, 0.9).dino as Float32Array).entries()) {
    expect(value).toBeCloseTo(official[k] as number, 5);
  }
});

test("a batch mean enters the centre one step late", () => {
  const centers = {
    dino: Float32Array.of(1, 2),
    ibot: null,
    pendingDino: Float32Array.of(3, 0),
    pendingIbot: null,
  };
  const next = applyPending(centers, 0.75);
  expect(next).toEqual({
    dino: Float32Array.of(1.5, 1.5),
    ibot: null,
    pendingDino: null,
    pendingIbot: null,
  });
  expect(applyPending(next, 0.75)).toEqual(next);
});

test("centres are kept for softmax centring only, and for iBOT only if it is used", () => {
  const heads = {
    dino: { prototypes: 3, bottleneck: 2, hidden: 2, layers: 3 },
    ibot: { prototypes: 5, bottleneck: 2, hidden: 2, layers: 3 },
  };
  const base = { steps: 1, batchPerRank: 2, data: { path: "unused" }, heads };
  const of = (centering: "softmax" | "sinkhorn", ibot: number) =>
    initialCenters(parseRunSpec({ ...base, loss: { ibot, centering } }));
  expect([of("softmax", 1).dino?.length, of("softmax", 1).ibot?.length]).toEqual([3, 5]);
  expect(of("softmax", 0).ibot).toBeNull();
  expect(Object.values(of("sinkhorn", 1))).toEqual([null, null, null, null]);
});

test("iBOT's batch mean is the mean over ranks of their own means, without ranks that have no patch", async () => {
  const dino = [tf.tensor2d([[1], [3]]), tf.tensor2d([[5], [7]]), tf.tensor2d([[9], [11]])];
  const ibot = [tf.tensor2d([[2]]), undefined, tf.tensor2d([[4], [6], [8]])];
  const sizes = { dino: 1, ibot: 1, logicalRanks: 3 };
  const means = await readMeans(launchMeans(dino, ibot), sizes, sumOf);
  expect(means.dino).toEqual(Float32Array.of(6));
  expect(means.ibot).toEqual(Float32Array.of(4));
  const nothing = [undefined, undefined, undefined];
  expect((await readMeans(launchMeans(dino, nothing), sizes, sumOf)).ibot).toBeNull();
});
