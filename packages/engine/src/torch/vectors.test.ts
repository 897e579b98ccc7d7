/** Device vectors against the host's flat arithmetic, which has laws of its own (flat.test.ts). */
import * as tf from "@tensorflow/tfjs-core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { normals, relativeError } from "../testing/numbers.js";
import { skipReason, torchForTests } from "../testing/torch.js";
import type { DeviceVector } from "./vectors.js";

const engine = await torchForTests();
const size = 1000;
const options = {
  learningRate: 1e-2,
  beta1: 0.9,
  beta2: 0.99,
  eps: 1e-8,
  weightDecay: 0.1,
  step: 3,
};

function random(seed: number): Float32Array {
  return Float32Array.from(normals(size, seed));
}

describe.skipIf(skipReason)(`device vectors ${skipReason ?? ""}`, () => {
  // The body runs also where the tests are skipped.
  const { vectors, flat } = (engine ?? {}) as unknown as {
    vectors: NonNullable<NonNullable<typeof engine>["vectors"]>;
    flat: NonNullable<NonNullable<typeof engine>["flat"]>;
  };
  const read = (x: DeviceVector): Float32Array => {
    const out = new Float32Array(x.size);
    vectors.read(x, out);
    return out;
  };
  let before = 0;
  beforeEach(() => {
    before = tf.memory().numTensors;
    tf.engine().startScope();
  });
  afterEach(() => {
    tf.engine().endScope();
    expect(tf.memory().numTensors).toBe(before);
  });

  test("an AdamW step of parts leaves the rest alone and is the host's within rounding", () => {
    const start = [1, 2, 3, 4].map((seed) => random(seed));
    start[3] = (start[3] as Float32Array).map(Math.abs);
    const expected = start.map((x) => x.slice());
    const device = start.map((x) => vectors.from(x)) as [
      DeviceVector,
      DeviceVector,
      DeviceVector,
      DeviceVector,
    ];
    const ranges = [
      [0, 10],
      [256, 700],
    ] as const;
    for (const [from, to] of ranges) {
      const [p, g, m, v] = expected.map((x) => x.subarray(from, to)) as [
        Float32Array,
        Float32Array,
        Float32Array,
        Float32Array,
      ];
      flat.adamw(p, g, m, v, options);
    }
    const [param, grad, m, v] = device;
    const parts = ranges.map(([from, to]) => ({
      param: vectors.view(param, from, to),
      grad: vectors.view(grad, from, to),
      m: vectors.view(m, from, to),
      v: vectors.view(v, from, to),
    }));
    vectors.adamw(parts, options);
    for (const [i, x] of device.entries()) {
      // A few float32 roundings in another order.
      expect(relativeError(read(x), expected[i] as Float32Array), `vector ${i}`).toBeLessThan(1e-6);
      expect(read(x)[20], "outside the parts").toBe(start[i]?.[20]);
    }
    const shifted = { param, grad, m, v: vectors.view(v, 1, size) };
    expect(() => vectors.adamw([shifted], options)).toThrow(/must lie alike/);
  });

  test("ema, add, scale and half precision are the host's", () => {
    const [a, b] = [random(5), random(6)];
    const cases: [string, (x: Float32Array) => void, (x: DeviceVector, y: DeviceVector) => void][] =
      [
        ["ema", (x) => flat.ema(x, b, 0.99), (x, y) => vectors.ema(x, y, 0.99)],
        ["add", (x) => flat.add(x, b), (x, y) => vectors.add(x, y)],
        ["scale", (x) => flat.scale(x, 0.3), (x) => vectors.scale(x, 0.3)],
        ["roundHalf", (x) => flat.roundHalf(x), (x) => vectors.roundHalf(x)],
      ];
    for (const [name, onHost, onDevice] of cases) {
      const [expected, x] = [a.slice(), vectors.from(a)];
      onHost(expected);
      onDevice(x, vectors.from(b));
      expect(relativeError(read(x), expected), name).toBeLessThan(2e-7);
    }
    const bits = new Uint16Array(size);
    flat.encodeHalf(a, bits);
    expect(vectors.encodeHalf(vectors.from(a))).toEqual(bits);
    const decoded = vectors.zeros(size);
    vectors.decodeHalf(bits, decoded);
    const expected = new Float32Array(size);
    flat.decodeHalf(bits, expected);
    expect(read(decoded)).toEqual(expected);
  });

  test("sums of squares by chunk, the last one shorter, are the host's within double rounding", () => {
    const values = random(7);
    const x = vectors.from(values);
    const parts = [
      [0, 1000],
      [256, 256],
      [256, 768],
    ] as const;
    const sums = vectors.sumSquares(
      parts.map(([from, to]) => vectors.view(x, from, to)),
      256,
    );
    for (const [i, [from, to]] of parts.entries()) {
      const expected = new Float64Array(Math.ceil((to - from) / 256));
      flat.sumSquares(values.subarray(from, to), 256, expected);
      expect(relativeError(sums[i] as Float64Array, expected), `part ${i}`).toBeLessThan(1e-14);
    }
  });

  test("chunks' inner products are those of the host to float32, the same from any place", () => {
    const [left, right] = [random(768), random(768)];
    const [a, b] = [vectors.from(left), vectors.from(right)];
    const [all, tail, none] = vectors.sumProducts(
      (
        [
          [0, 700],
          [256, 700],
          [5, 5],
        ] as const
      ).map(([from, to]) => [vectors.view(a, from, to), vectors.view(b, from, to)] as const),
      256,
    );
    for (const [c, sum] of (all as Float64Array).entries()) {
      const chunk = left.subarray(256 * c, Math.min(700, 256 * (c + 1)));
      const products = [...chunk].map((value, i) => value * (right[256 * c + i] as number));
      const exact = products.reduce((x, y) => x + y, 0);
      const largest = products.reduce((x, y) => x + Math.abs(y), 0);
      expect(Math.abs(sum - exact), `chunk ${c}`).toBeLessThan(1e-7 * largest);
    }
    expect(tail).toEqual((all as Float64Array).subarray(1));
    expect(none).toHaveLength(0);
    vectors.dispose(a);
    vectors.dispose(b);
  });

  test("views share memory, slices do not, and nothing reaches outside a vector", () => {
    const x = vectors.from(random(8));
    const slice = vectors.slice(x, 10, 20);
    const kept = read(slice);
    vectors.write(vectors.view(x, 10, 20), new Float32Array(10).fill(7));
    expect(read(vectors.view(x, 5, 25)).subarray(5, 15)).toEqual(new Float32Array(10).fill(7));
    expect(read(slice)).toEqual(kept);
    expect(() => vectors.view(x, 900, 1001)).toThrow(/\[900, 1001\) of a vector of 1000/);
    expect(() => vectors.write(vectors.view(x, 995, 1000), new Float32Array(10))).toThrow(
      /expected 5 values, received 10/,
    );
    vectors.dispose(x);
    expect(() => vectors.scale(x, 2)).toThrow(/disposed/);
  });
});
