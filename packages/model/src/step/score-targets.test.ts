import { parseRunSpec, rngOf } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { dinoTargets, ibotTargets } from "./score-targets.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

const images = 3;
const prototypes = 4;

/** Positive numbers [rows][K], which is all that a cross-entropy needs here. */
function random(rows: number, key: number): number[][] {
  const rng = rngOf(7, key);
  return Array.from({ length: rows }, () =>
    Array.from({ length: prototypes }, () => rng.between(0.1, 1)),
  );
}

const entropy = (target: readonly number[], scores: readonly number[]): number =>
  -target.reduce((sum, p, k) => sum + p * Math.log(scores[k] as number), 0);

/**
 * dinov3's definition: means over all (student crop, teacher crop, image) triples but equal crops, each part with its share of the
 * number of pairs.
 */
function official(
  student: number[][],
  teacher: number[][],
  locals: number,
  options: { samePairs: boolean; localWeight: number },
): number {
  const mean = (crops: readonly number[], ignoreDiagonal: boolean): number => {
    const triples = crops
      .flatMap((crop, s) => [0, 1].map((t) => ({ crop, s, t })))
      .filter(({ s, t }) => !(ignoreDiagonal && s === t))
      .flatMap(({ crop, t }) => Array.from({ length: images }, (_, b) => ({ crop, t, b })));
    const losses = triples.map(({ crop, t, b }) =>
      entropy(teacher[t * images + b] as number[], student[crop * images + b] as number[]),
    );
    return losses.reduce((a, b) => a + b, 0) / Math.max(1, losses.length);
  };
  const localCrops = Array.from({ length: locals }, (_, crop) => crop);
  const globalPairs = options.samePairs ? 4 : 2;
  const all = globalPairs + 2 * locals;
  return (
    (2 * locals * options.localWeight * mean(localCrops, false)) / all +
    (globalPairs * mean([locals, locals + 1], !options.samePairs)) / all
  );
}

test.each([
  { locals: 2, samePairs: false, localWeight: 1 },
  { locals: 2, samePairs: true, localWeight: 1 },
  { locals: 3, samePairs: true, localWeight: 0.5 },
  { locals: 1, samePairs: false, localWeight: 0 },
  { locals: 0, samePairs: false, localWeight: 1 },
  { locals: 0, samePairs: true, localWeight: 1 },
])(
  "the DINO loss is a mean over crop pairs with $locals local crops, same pairs: $samePairs, local weight $localWeight",
  (options) => {
    const { locals, samePairs, localWeight } = options;
    const spec = parseRunSpec({
      steps: 1,
      batchPerRank: images,
      data: { path: "unused" },
      crops: { localCount: locals },
      loss: { dino: 0.7, samePairs },
    });
    const student = random((locals + 2) * images, 1);
    const teacher = random(2 * images, 2);
    const before = tf.memory().numTensors;
    const cls = tf.tensor2d(teacher);
    const run = dinoTargets(spec, cls, { lossScale: 4, localWeight });
    const targets = run.target.arraySync();
    tf.dispose([cls, run.target]);
    expect(tf.memory().numTensors).toBe(before);
    const loss = student.reduce((sum, scores, row) => {
      const target = targets[run.index[row] as number] as number[];
      return sum + (run.weight[row] as number) * entropy(target, scores);
    }, 0);
    expect(run.count).toBe(student.length);
    expect(loss).toBeCloseTo(4 * 0.7 * official(student, teacher, locals, options), 5);
  },
);

test("masked patches weigh as much as their crop has few of them, over all crops", () => {
  const target = tf.zeros<tf.Rank.R2>([3, prototypes]);
  const { weight, index, count } = ibotTargets(target, Float32Array.of(0.5, 0.5, 1), {
    crops: 4,
    factor: 2,
  });
  expect([...weight]).toEqual([0.25, 0.25, 0.5]);
  expect([...index]).toEqual([0, 1, 2]);
  expect(count).toBe(3);
});
