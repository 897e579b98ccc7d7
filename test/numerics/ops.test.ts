/**
 * Every op and its gradient on every engine, fused kernels included, against one reference: the op's own composition on TF.js's
 * JavaScript backend, which the model's unit tests hold to formulas in double precision and finite differences.
 */
import { readFileSync } from "node:fs";
import { rngOf } from "@paddock/contract";
import { referenceFlatMath } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { beforeEach, describe, expect, test } from "vitest";
import { engines, onReference } from "./support/engines.js";
import type { OpCase } from "./support/op-case.js";
import { opCases } from "./support/op-cases.js";
import { expectWithinRounding, type Named, respond } from "./support/rounding.js";

describe.each(engines)("ops on $name", ({ name, use, flat }) => {
  beforeEach(use);

  test.each(opCases)("$name", async (one) => {
    const inputs = inputsOf(one);
    const reference = await onReference(() => respond(inputs, (values) => compute(one, values)));
    const before = tf.memory().numTensors;
    expect(one.kernels.every((kernel) => tf.getKernel(kernel, name) != null)).toBe(
      name === "torch",
    );
    expectWithinRounding(compute(one, inputs), reference, one.roundings);
    expect(tf.memory().numTensors).toBe(before);
  });

  test.runIf(flat)("flat arithmetic is the reference's, updates within their roundings", () => {
    if (!flat) return;
    const [p, g, m, v] = [1, 2, 3, 4].map((stream) => normals(1003, stream)) as Quadruple;
    const squares = v.map((value) => value * value);
    const options = { learningRate: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1 };
    const results = [flat, referenceFlatMath].map((math) => {
      const adam = [p, g, m, squares].map((x) => x.slice()) as Quadruple;
      math.adamw(...adam, { ...options, step: 5 });
      const teacher = p.slice();
      math.ema(teacher, g, 0.9);
      const half = new Uint16Array(p.length);
      math.encodeHalf(p, half);
      const decoded = new Float32Array(p.length);
      math.decodeHalf(half, decoded);
      const sum = p.slice();
      math.add(sum, g);
      const scaled = p.slice();
      math.scale(scaled, 0.3); // one rounds the factor to float32, the other does not
      const chunks = new Float64Array(4);
      math.sumSquares(p, 256, chunks);
      return { exact: { half, decoded, sum, chunks }, near: [...adam, teacher, scaled] };
    });
    const [actual, expected] = results as [(typeof results)[0], (typeof results)[0]];
    expect(actual.exact).toEqual(expected.exact);
    for (const [i, values] of expected.near.entries()) {
      for (const [k, value] of values.entries()) {
        // A dozen operations on values of magnitude 1 to 10, each within half a unit of 2^-23.
        const difference = Math.abs((actual.near[i]?.[k] ?? Number.NaN) - value);
        expect(difference).toBeLessThanOrEqual(6 * 2 ** -23 * Math.max(10, Math.abs(value)));
      }
    }
  });
});

test("every kernel of the agreement has a row", () => {
  const agreement = new URL("../../packages/model/src/ops/KERNELS.md", import.meta.url);
  const agreed = readFileSync(agreement, "utf8").match(/^\| (Paddock\w+)/gm) ?? [];
  const covered = new Set(opCases.flatMap(({ kernels }) => kernels));
  // Precision conversion is no float32 op: test/numerics/precision.test.ts
  const float32 = agreed.map((row) => row.slice(2)).filter((name) => name !== "PaddockToPrecision");
  expect([...covered].sort()).toEqual(float32.sort());
});

type Quadruple = [Float32Array, Float32Array, Float32Array, Float32Array];

function normals(count: number, ...key: number[]): Float32Array {
  const rng = rngOf(31, ...key);
  return Float32Array.from({ length: count }, () => rng.normal());
}

function inputsOf({ inputs }: OpCase): Named {
  return new Map(
    Object.entries(inputs).map(([name, shape], i) => [
      name,
      normals(
        shape.reduce((a, b) => a * b),
        i,
      ),
    ]),
  );
}

function compute(one: OpCase, values: Named): Named {
  const results = new Map<string, Float32Array>();
  tf.tidy(() => {
    const input = (name: string) => values.get(name) as Float32Array;
    const outputs = one.run({
      m: (name) => tf.tensor2d(input(name), one.inputs[name] as [number, number]),
      v: (name) => tf.tensor1d(input(name)),
    });
    for (const [name, tensor] of Object.entries(outputs)) {
      if (tensor) results.set(name, Float32Array.from(tensor.dataSync()));
    }
  });
  return results;
}
