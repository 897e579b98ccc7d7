/** Our side of the bench `step`: a block, twelve blocks, or a whole training step on the torch engine. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { layoutOf, parseRunSpec, type RunSpec, type Unit } from "@paddock/contract";
import { type Engine, openEngine } from "@paddock/engine";
import {
  blockBackward,
  blockForward,
  blockOf,
  disposeBlock,
  dropNothing,
  initialUnit,
  type Precision,
  type UnitTensors,
  viewUnit,
  vitConfigOf,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { kernelTimes } from "./harness/kernel-times.js";
import { type Answer, serveCommands } from "./harness/sides.js";
import { noiseBatch, startTraining } from "./harness/training.js";
import { measured, residentMiB } from "./harness/usage.js";

/** What both sides are told: see BenchContext. */
interface Options {
  readonly threads: number;
  readonly device: string;
  readonly precision: Precision;
  readonly batch: number;
}

/** ViT-S/16 with the official crops, one logical rank. */
function specOf(activations: "keep" | "recompute"): RunSpec {
  return parseRunSpec({
    steps: 1000,
    logicalRanks: 1,
    batchPerRank: options.batch,
    data: { path: "none" },
    fleet: { workers: 1 },
    model: { arch: "small" },
    loss: { centering: "softmax" },
    schedules: { learningRate: { start: 1e-4, peak: 1e-4 } },
    engine: { activations, precision: options.precision },
  });
}

type Work = () => Promise<Answer | undefined>;

/** What one measurement runs. `folder`: where to leave inputs for the peer. */
function workOf(name: string, engine: Engine, folder: string): Work {
  switch (name) {
    case "block":
      return blocks(specOf("keep"), engine, 1);
    case "blocks":
      return blocks(specOf("keep"), engine, 12);
    case "blocks-recompute":
      return blocks(specOf("recompute"), engine, 12);
    case "step":
      return wholeStep(specOf("keep"), engine, folder);
    case "step-recompute":
      return wholeStep(specOf("recompute"), engine, folder);
    default:
      throw new RangeError(`no case ${name}`);
  }
}

/** Forward and backward of the first `depth` blocks on a batch of sequences of 197 rows. Gradients are computed and dropped. */
function blocks(spec: RunSpec, engine: Engine, depth: number): Work {
  const config = vitConfigOf(spec);
  const groups = [{ count: options.batch, length: 197 }];
  const units = layoutOf(spec).units.filter(({ name }) => name.startsWith("block."));
  const layers = units.slice(0, depth).map((unit, i) => {
    return blockOf(config, unitTensors(spec, engine, unit), `backbone.blocks.${i}`);
  });
  const x = tf.randomNormal([options.batch * 197, config.width]) as tf.Tensor2D;
  const dy = tf.randomNormal([options.batch * 197, config.width]) as tf.Tensor2D;
  const recompute = spec.engine.activations === "recompute";
  return async () => {
    let row = tf.clone(x);
    const kept = layers.map((layer) => {
      const input = row;
      const { y, saved } = blockForward(layer, input, groups, dropNothing);
      row = y;
      if (recompute) disposeBlock(saved);
      return { layer, input, saved };
    });
    row.dispose();
    let d = tf.clone(dy);
    for (const { layer, input, saved } of kept.toReversed()) {
      const again = recompute ? blockForward(layer, input, groups, dropNothing) : undefined;
      again?.y.dispose();
      const { dx, grads } = blockBackward(layer, d, input, groups, again?.saved ?? saved);
      tf.dispose([input, ...Object.values(grads)]);
      d = dx;
    }
    d.dispose();
    return undefined;
  };
}

const flatVectors: Float32Array[] = []; // borrowed by tensors for as long as this process lives

function unitTensors(spec: RunSpec, engine: Engine, unit: Unit): UnitTensors {
  const values = new Float32Array(new SharedArrayBuffer(4 * unit.elements)); // read in place
  values.set(initialUnit(spec, unit));
  flatVectors.push(values);
  return viewUnit(unit, engine.tensorFromFlat(values), spec.engine.precision);
}

/** A training step with AdamW and EMA. Leaves parameters and inputs in `folder`, for a peer that starts from the same numbers. */
function wholeStep(spec: RunSpec, engine: Engine, folder: string): Work {
  const training = startTraining(spec, engine);
  const batch = noiseBatch(spec, 0);
  if (folder) {
    const index: Record<string, unknown> = {};
    for (const unit of training.layout.units) {
      const values = training.initial(unit);
      writeFileSync(join(folder, `${unit.name}.f32`), values);
      for (const {
        name,
        shape,
        offset,
        lrMultiplier,
        wdMultiplier,
        isLastLayer,
      } of unit.parameters) {
        index[name] = { unit: unit.name, shape, offset, lrMultiplier, wdMultiplier, isLastLayer };
      }
    }
    const masks = { rows: [...batch.maskRows], weights: [...batch.maskWeights] };
    writeFileSync(join(folder, "globals.f32"), batch.globalCrops);
    writeFileSync(join(folder, "locals.f32"), batch.localCrops as Float32Array);
    writeFileSync(join(folder, "run.json"), JSON.stringify({ index, masks, spec }));
  }
  return async () => ({ loss: await training.step([batch]) });
}

const [name = "", given = "{}", folder = ""] = process.argv.slice(2);
const options: Options = JSON.parse(given);
const engine = await openEngine({ name: "torch", ...options });
tf.tidy(() => tf.matMul(tf.ones([64, 64]), tf.ones([64, 64])).dataSync());
const baseline = residentMiB();
let work: Work | undefined;

await serveCommands({
  /** Builds the model; answers with the memory of a process that has only its libraries. */
  async setup() {
    work = workOf(name, engine, folder);
    return { baselineMiB: baseline };
  },
  async run() {
    let extra: Answer | undefined;
    const usage = await measured(async () => {
      extra = await work?.();
      engine.synchronize();
    });
    const deviceMiB = (engine.deviceMemory()?.peakAllocatedBytes ?? 0) / 2 ** 20;
    return { ...usage, ...extra, deviceMiB, tensors: tf.memory().numTensors };
  },
  async profile() {
    const rows = await kernelTimes(() => work?.());
    return Object.fromEntries(rows.map(([kernel, ms, calls]) => [`${kernel} x${calls}`, ms]));
  },
});
