import { rngOf } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { entropies } from "./monitor.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

const prototypes = 40;

/** Entropy of the outputs, entropy of their mean. */
async function measured(
  scores: readonly (readonly number[])[],
  center: Float32Array | null,
  temperature: number,
): Promise<[number, number]> {
  const tensor = tf.tensor2d(scores.map((row) => [...row]));
  const result = entropies(tensor, center, temperature);
  const values = (await result.data()) as unknown as [number, number];
  tf.dispose([tensor, result]);
  return values;
}

function entropyOf(p: readonly number[]): number {
  return p.reduce((sum, x) => (x > 0 ? sum - x * Math.log(x) : sum), 0);
}

test("entropies agree with doubles, and what outputs say about their image is never negative", async () => {
  const rng = rngOf(5);
  const center = Float32Array.from({ length: prototypes }, () => rng.normal() / 5);
  for (const [used, temperature] of [[null, 0.04] as const, [center, 0.07] as const]) {
    const scores = Array.from({ length: 6 }, () =>
      Array.from({ length: prototypes }, () => rng.normal() / 8),
    );
    const outputs = scores.map((row) => {
      const exp = row.map((s, k) => Math.exp((s - (used?.[k] ?? 0)) / temperature));
      const sum = exp.reduce((a, b) => a + b);
      return exp.map((e) => e / sum);
    });
    const mean = outputs[0]?.map(
      (_, k) => outputs.reduce((sum, p) => sum + (p[k] as number), 0) / outputs.length,
    ) as number[];
    const [entropy, ofMean] = await measured(scores, used, temperature);
    const wanted = outputs.reduce((sum, p) => sum + entropyOf(p), 0) / outputs.length;
    expect(entropy).toBeCloseTo(wanted, 4); // fp32 sums of 40 terms
    expect(ofMean).toBeCloseTo(entropyOf(mean), 4);
    expect(ofMean).toBeGreaterThan(entropy);
  }
});

test("the three corners: uniform, one prototype for all, one prototype each", async () => {
  const oneOf = (hit: (row: number) => number): number[][] =>
    Array.from({ length: 4 }, (_, row) =>
      Array.from({ length: prototypes }, (_, k) => (k === hit(row) ? 1 : -1)),
    );
  const even = Array.from({ length: 4 }, () => new Array<number>(prototypes).fill(0.3));
  const uniform = Math.log(prototypes);
  const close = async (values: Promise<[number, number]>, wanted: [number, number]) => {
    for (const [i, value] of (await values).entries()) expect(value).toBeCloseTo(wanted[i] ?? 0, 5);
  };
  await close(measured(even, null, 0.04), [uniform, uniform]);
  // A probability of exp(-2 / 0.01) is 0 in float32: 0 ln 0 must be 0.
  await close(
    measured(
      oneOf(() => 7),
      null,
      0.01,
    ),
    [0, 0],
  );
  await close(
    measured(
      oneOf((row) => row),
      null,
      0.01,
    ),
    [0, Math.log(4)],
  );
});
