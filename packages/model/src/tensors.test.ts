import type { Unit } from "@paddock/contract";
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeEach, describe, expect, test } from "vitest";
import { flatGradient, viewUnit } from "./tensors.js";

const parameter = { lrMultiplier: 1, wdMultiplier: 1, trainable: true, isLastLayer: false };
const unit: Unit = {
  name: "norm",
  submodule: "backbone",
  elements: 48,
  parameters: [
    { ...parameter, name: "a", shape: [2, 3], offset: 0, elements: 6 },
    { ...parameter, name: "b", shape: [16], offset: 16, elements: 16 },
    { ...parameter, name: "c", shape: [1, 1, 5], offset: 32, elements: 5 },
  ],
};

describe.each(["wasm", "cpu"])("on %s", (backend) => {
  beforeEach(async () => {
    await tf.setBackend(backend);
  });

  test("a unit's parameters are cut out of its flat vector, and put back with zero padding", async () => {
    const before = tf.memory().numTensors;
    const flat = tf.range(1, 49) as tf.Tensor1D;
    const tensors = viewUnit(unit, flat);
    flat.dispose();
    expect(tensors["a"]?.shape).toEqual([2, 3]);
    expect([...(tensors["c"]?.dataSync() ?? [])]).toEqual([33, 34, 35, 36, 37]);
    const back = valuesOf(flatGradient(unit, tensors));
    tf.dispose(Object.values(tensors));
    const expected = Array.from({ length: 48 }, (_, i) =>
      i < 6 || (16 <= i && i < 37) ? i + 1 : 0,
    );
    expect([...back]).toEqual(expected);
    expect(tf.memory().numTensors).toBe(before);
  });

  test("absent gradients are zero", async () => {
    const b = tf.ones([16]);
    const flat = valuesOf(flatGradient(unit, { b }));
    expect([...flat].filter((value) => value === 1)).toHaveLength(16);
    expect(flat[16]).toBe(1);
    b.dispose();
    expect(valuesOf(flatGradient(unit, {}))).toEqual(new Float32Array(48));
  });

  test("a gradient of an unknown name or a wrong size is refused", async () => {
    const wrong = tf.ones([15]);
    expect(() => flatGradient(unit, { d: wrong })).toThrow("has no parameter d");
    expect(() => flatGradient(unit, { b: wrong })).toThrow("expected 16 elements");
    wrong.dispose();
  });
});

function valuesOf(x: tf.Tensor): Float32Array {
  const values = x.dataSync() as Float32Array;
  x.dispose();
  return values;
}
