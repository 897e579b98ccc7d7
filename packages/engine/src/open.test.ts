import * as tf from "@tensorflow/tfjs-core";
import { afterEach, describe, expect, test } from "vitest";
import type { Engine } from "./engine.js";
import { describeEngines, openEngine } from "./open.js";
import { chooseTensorflow } from "./tensorflow/installed.js";
import { skipReason } from "./testing/torch.js";
import { threadEnvironment } from "./threads.js";

const tensorflow = chooseTensorflow();

let engine: Engine | undefined;
afterEach(() => {
  engine?.close();
  engine = undefined;
});

/** What every engine must do. */
function exercise(opened: Engine) {
  expect(tf.getBackend()).toBe(opened.name);
  expect(opened.why).not.toBe("");
  tf.tidy(() => {
    const flat = opened.tensorFromFlat(Float32Array.of(1, 2, 3, 4, 5, 6));
    const product = tf.matMul(tf.reshape(flat, [3, 2]), tf.reshape(flat, [2, 3]));
    const out = new Float32Array(9);
    opened.readInto(product, out);
    expect([...out]).toEqual([9, 12, 15, 19, 26, 33, 29, 40, 51]);
    expect(opened.memory().tensors).toBeGreaterThan(0);
    expect(opened.memory().bytes).toBeGreaterThan(0);
  });
}

test("wasm runs everywhere, and can be closed and opened again", async () => {
  for (let i = 0; i < 2; i++) {
    engine = await openEngine({ name: "wasm", threads: 4 });
    expect(engine).toMatchObject({ name: "wasm", device: "cpu", threads: 1, flat: null });
    exercise(engine);
    engine.close();
    engine = undefined;
  }
});

test.skipIf(tensorflow !== undefined)(
  "tensorflow that is not installed is an error with a remedy",
  async () => {
    const opening = openEngine({ name: "tensorflow", threads: 1 });
    await expect(opening).rejects.toMatchObject({
      code: "engine-unavailable",
      message: expect.stringContaining("npm run setup:tensorflow"),
    });
  },
);

const why = tensorflow ? "" : "(none is installed: npm run setup:tensorflow)";
describe.skipIf(tensorflow === undefined)(`tensorflow ${why}`, () => {
  test("says which TensorFlow it is and on which device, and can be closed and opened again", async () => {
    for (let i = 0; i < 2; i++) {
      engine = await openEngine({ name: "tensorflow", threads: 1 });
      expect(engine).toMatchObject({ name: "tensorflow", threads: 1, flat: null });
      expect(engine.version).toMatch(/^TensorFlow \d+\.\d+/);
      expect(["cpu", "cuda"]).toContain(engine.device);
      exercise(engine);
      engine.close();
      engine = undefined;
    }
  });

  test("a device that TensorFlow does not take is an error that says so", async () => {
    const opening = openEngine({ name: "tensorflow", threads: 1, device: "tpu" });
    await expect(opening).rejects.toMatchObject({
      code: "engine-unavailable",
      message: expect.stringContaining("CUDA_VISIBLE_DEVICES"),
    });
  });
});

test("every engine is described, available or not", () => {
  const engines = describeEngines();
  expect(engines.map(({ name }) => name)).toEqual(["torch", "tensorflow", "wasm"]);
  expect(engines.every(({ note }) => note !== "")).toBe(true);
});

test("processes get their thread counts by environment", () => {
  expect(threadEnvironment(3)).toMatchObject({ OMP_NUM_THREADS: "3", OMP_WAIT_POLICY: "passive" });
});

test.skipIf(skipReason === undefined)(
  "auto without the addon falls back and says why",
  async () => {
    engine = await openEngine({ name: "auto", threads: 1 });
    expect(engine.why).toContain(skipReason);
    await expect(openEngine({ name: "torch", threads: 1 })).rejects.toMatchObject({
      code: "engine-unavailable",
    });
  },
);

describe.skipIf(skipReason)(`torch ${skipReason ?? ""}`, () => {
  test("auto takes torch, and it can be closed and opened again", async () => {
    for (let i = 0; i < 2; i++) {
      engine = await openEngine({ name: "auto", threads: 1, device: "cpu" });
      expect(engine).toMatchObject({ name: "torch", device: "cpu", threads: 1 });
      exercise(engine);
      const kept = tf.tensor1d([1]);
      engine.close();
      expect(engine.memory()).toEqual({ tensors: 0, bytes: 0 });
      kept.dispose();
      engine = undefined;
    }
  });

  test("a device or thread count that cannot be is an error that says so", async () => {
    for (const device of ["cuda:9", "tpu"]) {
      await expect(openEngine({ name: "torch", threads: 1, device })).rejects.toMatchObject({
        code: "engine-unavailable",
        message: expect.stringContaining(`device ${device} cannot be used`),
      });
    }
    await expect(openEngine({ name: "torch", threads: 0 })).rejects.toThrow(/threads.*got 0/);
  });
});
