import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { expect, test } from "vitest";
import { referenceFlatMath } from "./flat-math.js";
import { hostVectors } from "./vectors.js";

test("a vector is lent again only after its disposal, once, and never one that was handed in", async () => {
  const vectors = hostVectors(referenceFlatMath);
  const own = new Float32Array(3);
  const first = vectors.zeros(3);
  const second = vectors.slice(Float32Array.of(1, 2, 3, 4), 1, 4);
  expect(second).toEqual(Float32Array.of(2, 3, 4));
  expect(second).not.toBe(first);
  vectors.dispose(vectors.from(own));
  vectors.dispose(second);
  vectors.dispose(second);
  const again = vectors.zeros(3);
  expect(again).toBe(second);
  expect(again).toEqual(new Float32Array(3));
  const adopted = await vectors.adopt(tf.tensor1d([5, 6, 7]));
  expect(adopted).toEqual(Float32Array.of(5, 6, 7));
  expect([own, first, again]).not.toContain(adopted);
  expect(vectors.zeros(4).length).toBe(4);
});
