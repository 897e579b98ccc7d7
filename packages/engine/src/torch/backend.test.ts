/** What the backend promises beyond its kernels: views, ownership, reproducible bits, no leaks. */
import { createHash } from "node:crypto";
import * as tf from "@tensorflow/tfjs-core";
import { describe, expect, test } from "vitest";
import type { Engine } from "../engine.js";
import { normals } from "../testing/numbers.js";
import { skipReason, torchForTests } from "../testing/torch.js";

const opened = await torchForTests();

describe.skipIf(skipReason)(`the torch backend ${skipReason ?? ""}`, () => {
  const engine = opened as Engine;
  const runKernel = (name: string, inputs: Record<string, tf.Tensor>, attrs: object = {}) => {
    const outputs: tf.Tensor | tf.Tensor[] = tf.engine().runKernel(name, inputs, { ...attrs });
    return Array.isArray(outputs) ? outputs : [outputs];
  };
  const bits = (t: tf.Tensor) => createHash("sha256").update(t.dataSync()).digest("hex");

  // A GPU has memory of its own.
  const onCpu = test.runIf(opened?.device === "cpu");
  onCpu("a flat vector in shared memory becomes weights without a copy", () => {
    const flat = new Float32Array(new SharedArrayBuffer(4 * 1003), 4, 1000).fill(1);
    const { bytes } = engine.memory();
    tf.tidy(() => {
      const vector = engine.tensorFromFlat(flat);
      const weights = tf.reshape(tf.slice(vector, 10, 600), [20, 30]);
      expect(engine.memory().bytes).toBe(bytes);
      flat[10] = 7;
      expect(weights.dataSync()[0]).toBe(7);
    });
  });

  test("a tensor made by TF.js owns its values", () => {
    const values = Float32Array.of(1, 2);
    const x = tf.tensor1d(values);
    values[0] = 9;
    expect([...x.dataSync()]).toEqual([1, 2]);
    const read = x.dataSync();
    read[1] = 9;
    expect([...x.dataSync()]).toEqual([1, 2]);
    x.dispose();
  });

  test("values are read into an array that exists", () => {
    const x = tf.tensor2d([1, 2, 3, 4, 5, 6], [2, 3]);
    const columns = tf.transpose(x);
    const out = new Float32Array(new SharedArrayBuffer(32), 4, 6);
    engine.readInto(columns, out);
    expect([...out]).toEqual([1, 4, 2, 5, 3, 6]);
    expect(() => engine.readInto(x, new Float32Array(4))).toThrow(/24 bytes, the array 16/);
    tf.dispose([x, columns]);
  });

  test("reshapes, transposes, slices and splits share memory and outlive their source", () => {
    const { bytes, tensors } = engine.memory();
    const x = tf.tensor2d(Float32Array.from(normals(24, 1)), [4, 6]);
    const wanted = [...x.dataSync()].slice(12, 18);
    const views = [
      tf.reshape(x, [2, 12]),
      tf.transpose(x),
      ...tf.split(x, 2),
      tf.slice(x, [2], [1]),
    ];
    expect(engine.memory()).toEqual({ tensors: tensors + 6, bytes: bytes + 96 });
    x.dispose();
    expect([...(views.at(-1) as tf.Tensor).dataSync()]).toEqual(wanted);
    tf.dispose(views);
    expect(engine.memory()).toEqual({ tensors, bytes });
  });

  test("a disposed tensor is refused", () => {
    const x = tf.tensor1d([1]);
    x.dispose();
    expect(() => tf.exp(x)).toThrow();
    expect(() => x.dataSync()).toThrow(/disposed/);
  });

  test("strings pass through, and computing with them is an error", () => {
    const words = tf.tensor1d(["a", "bc"]);
    expect(words.arraySync()).toEqual(["a", "bc"]);
    expect(() => tf.concat([words, words])).toThrow(/no kernel for string/);
    words.dispose();
  });

  test("two hundred training steps leave neither tensors nor bytes behind", () => {
    const w = tf.variable(tf.tensor2d(Float32Array.from(normals(64 * 64, 1)), [64, 64]));
    const x = tf.tensor2d(Float32Array.from(normals(32 * 64, 2)), [32, 64]);
    const step = () =>
      tf.tidy(() => {
        const bias = tf.zeros([64]);
        const [h] = runKernel("PaddockLinear", { x, w, bias });
        const dy = tf.mul(h as tf.Tensor, 1e-3);
        const [dw] = runKernel(
          "PaddockLinearBackward",
          { dy, x, w },
          { needDx: true, hasBias: true },
        );
        w.assign(tf.sub(w, tf.mul(dw as tf.Tensor, 1e-3)) as tf.Tensor2D);
      });
    step();
    const before = { ...engine.memory(), ...tf.memory() };
    for (let i = 0; i < 200; i++) step();
    expect({ ...engine.memory(), ...tf.memory() }).toEqual(before);
    expect(Number.isFinite(w.dataSync()[0])).toBe(true);
    tf.dispose([w, x]);
  });

  // Shapes for which MKL's products differ with the operands' alignment unless it is told not to.
  for (const [M, I, O] of [
    [2, 384, 256],
    [1, 384, 2048],
    [5, 192, 576],
    [197, 384, 384],
  ] as const) {
    test(`the bits of a ${M}x${I}x${O} product do not depend on where the operands lie`, () => {
      const place = (values: ArrayLike<number>, offset: number, shape: number[]) => {
        const buffer = new SharedArrayBuffer(4 * (values.length + 16));
        const view = new Float32Array(buffer, 4 * offset, values.length);
        view.set(Array.from(values));
        return tf.reshape(engine.tensorFromFlat(view), shape);
      };
      const [x, w, dy] = [normals(M * I, 1), normals(O * I, 2), normals(M * O, 3)];
      const products = (offset: number) =>
        tf.tidy(() => {
          const inputs = { x: place(x, offset, [M, I]), w: place(w, offset, [O, I]) };
          const upstream = { ...inputs, dy: place(dy, offset, [M, O]) };
          const backward = { needDx: true, hasBias: true };
          const all = [
            ...runKernel("PaddockLinear", inputs),
            ...runKernel("PaddockLinearBackward", upstream, backward),
          ];
          return all.map((t) => bits(t));
        });
      const aligned = products(0);
      for (const offset of [1, 5, 8]) expect(products(offset)).toEqual(aligned);
    });
  }

  test("the same inputs give the same bits, run after run", () => {
    const groups = [
      { count: 2, length: 50 },
      { count: 3, length: 17 },
    ];
    const [qkv, dy] = [normals(151 * 192, 4), normals(151 * 64, 5)];
    const once = () =>
      tf.tidy(() => {
        const packed = tf.tensor2d(Float32Array.from(qkv), [151, 192]);
        const attrs = { numHeads: 2, groups };
        const [out, lse] = runKernel("PaddockAttention", { qkv: packed }, attrs) as [
          tf.Tensor,
          tf.Tensor,
        ];
        const upstream = tf.tensor2d(Float32Array.from(dy), [151, 64]);
        const saved = { dy: upstream, qkv: packed, out, lse };
        return [out, ...runKernel("PaddockAttentionBackward", saved, attrs)].map((t) => bits(t));
      });
    expect(once()).toEqual(once());
  });
});
