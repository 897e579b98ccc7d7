/** Our side of the bench `dispatch`: ops on tensors too small to take any time. */
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { layoutOf, parseRunSpec } from "@paddock/contract";
import { openEngine } from "@paddock/engine";
import {
  blockBackward,
  blockForward,
  blockOf,
  dropNothing,
  initialUnit,
  viewUnit,
  vitConfigOf,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { serveCommands } from "./harness/sides.js";

/** The addon's functions that are called past TF.js here. */
interface RawAddon {
  readonly shared: Int32Array;
  fromArray(values: Float32Array, dtype: number, rank: number): number;
  add(a: number, b: number): number;
  free(x: number): void;
}

const iterations = 20_000;
const chainLength = 100;

await openEngine({ name: "torch", threads: Number(process.argv[2] ?? 1) });
// TF.js registers no gradients under Node; one is enough here.
tf.registerGradient({
  kernelName: "Multiply",
  inputsToSave: ["a", "b"],
  gradFunc: (dy, [a, b]) => ({
    a: () => tf.mul(dy as tf.Tensor, b as tf.Tensor),
    b: () => tf.mul(dy as tf.Tensor, a as tf.Tensor),
  }),
});
const [a, b] = [tf.ones([4]), tf.ones([4])];

/** Microseconds per iteration. */
function perOp(work: () => void): number {
  const start = performance.now();
  work();
  return (1000 * (performance.now() - start)) / iterations;
}

function rawAdd(): () => void {
  const engine = fileURLToPath(import.meta.resolve("@paddock/engine"));
  const addon: RawAddon = createRequire(engine)("../build/paddock_engine.node");
  const handle = (): number => {
    addon.shared[1024] = 4; // the first list of an op: a shape
    return addon.fromArray(new Float32Array(4), 0, 1);
  };
  const [left, right] = [handle(), handle()];
  return () => {
    for (let i = 0; i < iterations; i++) addon.free(addon.add(left, right));
  };
}

function runKernel(): void {
  for (let i = 0; i < iterations; i++) {
    (tf.engine().runKernel("Add", { a, b }) as tf.Tensor).dispose();
  }
}

function tfAdd(): void {
  for (let i = 0; i < iterations; i++) tf.add(a, b).dispose();
}

/** Products on the tape; `forwardMs` collects the time of the forward pass alone. */
function chain(): { readonly forward: number; readonly both: number } {
  let forwardMs = 0;
  const gradient = tf.grad((x: tf.Tensor) => {
    const start = performance.now();
    let y = x;
    for (let i = 0; i < chainLength; i++) y = tf.mul(y, b);
    forwardMs += performance.now() - start;
    return y;
  });
  const both = perOp(() => {
    for (let i = 0; i < iterations / chainLength; i++) gradient(a, b).dispose();
  });
  return { forward: (1000 * forwardMs) / iterations, both };
}

/** Twelve blocks of width 8 on one sequence of 3 rows, forward and backward. */
function trainingPass(): () => void {
  const spec = parseRunSpec({
    steps: 1,
    batchPerRank: 2,
    data: { path: "none" },
    model: { width: 8, depth: 12, heads: 2 },
  });
  const groups = [{ count: 1, length: 3 }];
  const config = vitConfigOf(spec);
  const units = layoutOf(spec).units.filter(({ name }) => name.startsWith("block."));
  const layers = units.map((unit, i) => {
    const tensors = viewUnit(unit, tf.tensor1d(initialUnit(spec, unit)));
    return blockOf(config, tensors, `backbone.blocks.${i}`);
  });
  const x = tf.randomNormal([3, 8]) as tf.Tensor2D;
  const dy = tf.randomNormal([3, 8]) as tf.Tensor2D;
  return () => {
    let row = tf.clone(x);
    const kept = layers.map((layer) => {
      const input = row;
      const { y, saved } = blockForward(layer, input, groups, dropNothing);
      row = y;
      return { layer, input, saved };
    });
    row.dispose();
    let d = tf.clone(dy);
    for (const { layer, input, saved } of kept.toReversed()) {
      const { dx, grads } = blockBackward(layer, d, input, groups, saved);
      tf.dispose([input, ...Object.values(grads)]);
      d = dx;
    }
    d.dispose();
  };
}

const raw = rawAdd();
const pass = trainingPass();

await serveCommands({
  run({ passes }) {
    const taped = chain();
    return {
      raw: perOp(raw),
      runKernel: perOp(runKernel),
      tfAdd: perOp(tfAdd),
      taped: taped.forward,
      chain: taped.both,
      pass: Math.min(...Array.from({ length: Number(passes) }, () => timed(pass))),
    };
  },
});

function timed(work: () => void): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}
