/** One block of DINOv2 or DINOv3 on lists of token tensors, with recorded index sets of stochastic depth, and rotary tables (v3). */
import {
  blockBackward,
  blockForward,
  blockOf,
  drawSubset,
  dropNothing,
  type Rotation,
  type SequenceGroup,
  type UnitTensors,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { accumulate, checkGradients, numberOf, parametersOf, type Sums } from "../backbone.js";
import { asGradient, asOutput, type Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

const prefix = "backbone.blocks.0";

export const block: Kind = {
  name: "block with stochastic depth by subset",
  matches: (golden) =>
    (golden.family === "dinov2" || golden.family === "dinov3") &&
    golden.has("params.attn.qkv.weight") &&
    golden.names("outputs.").some((name) => /^outputs\.\w+\.y\.0$/.test(name)),
  run(golden, check) {
    const tensors = parametersOf(golden, "params.", `${prefix}.`);
    const modes = golden
      .names("outputs.")
      .flatMap((name) => /^outputs\.(\w+)\.y\.0$/.exec(name)?.[1] ?? []);
    for (const mode of modes) checkMode(golden, check, tensors, mode);
    tf.dispose(Object.values(tensors));
  },
};

/** All entries of a mode packed into one sequence: outputs, input gradients, parameter gradients. */
function checkMode(golden: Golden, check: Check, tensors: UnitTensors, mode: string): void {
  const entries = golden
    .names(`outputs.${mode}.y.`)
    .map((name) => Number(name.slice(`outputs.${mode}.y.`.length)))
    .sort((a, b) => a - b);
  const groups = entries.map((entry): SequenceGroup => {
    const [count = 0, length = 0] = golden.shape(`inputs.x.${entry}`);
    return { count, length };
  });
  const rotation = rotationOf(golden, entries);
  const layer = blockOf(configOf(golden), tensors, prefix);
  const x = packed(golden, "inputs.x", entries);
  const draw = drawOf(golden, mode, groups);
  const { y, saved } = blockForward(layer, x, groups, draw, rotation);
  checkEntries(golden, check, `outputs.${mode}.y`, y, groups, entries);
  const cotangent = packed(golden, "inputs.cotangent", entries);
  const { dx, grads } = blockBackward(layer, cotangent, x, groups, saved, rotation);
  const sums: Sums = new Map();
  accumulate(sums, grads);
  checkEntries(golden, check, `grads.${mode}.inputs.x`, dx, groups, entries);
  tf.dispose(rotation ? [x, rotation.cos, rotation.sin] : [x]);
  const names = { prefix: `grads.${mode}.`, ours: `${prefix}.` };
  checkGradients(golden, check, sums, { ...names, tolerance: asGradient });
}

function configOf({ config, has }: Golden) {
  const fused = has("params.mlp.w1.weight") || has("params.mlp.w12.weight");
  return {
    heads: numberOf(config, "heads"),
    normEps: numberOf(config, "norm_eps"),
    ffn: fused ? ("swiglu" as const) : ("mlp" as const),
    maskKeyBias: config.mask_k_bias === true,
  };
}

/** The recorded index sets in their call order: attention of each entry, then feed-forward of each. */
function drawOf(golden: Golden, mode: string, groups: readonly SequenceGroup[]) {
  if (golden.names(`inputs.${mode}.`).length === 0) return dropNothing;
  const rate = numberOf(golden.config, "drop");
  return (branch: 0 | 1) =>
    drawSubset(groups, rate, (group, _count, keep) => {
      const indices = golden.i32(`inputs.${mode}.indices.${branch * groups.length + group}`);
      if (indices.length !== keep) {
        throw new RangeError(`expected ${keep} sequences, received ${indices.length}`);
      }
      return indices;
    });
}

/** The recorded tables, whose two halves are the same. */
function rotationOf(golden: Golden, entries: readonly number[]): Rotation | undefined {
  if (!golden.has("inputs.rope_cos.0")) return undefined;
  const table = (name: string) =>
    tf.tidy(() => {
      const whole = tf.concat(entries.map((e) => golden.tensor<tf.Tensor2D>(`${name}.${e}`)));
      const [first, second] = tf.split(whole, 2, 1) as [tf.Tensor2D, tf.Tensor2D];
      if (tf.max(tf.abs(tf.sub(first, second))).dataSync()[0] !== 0) {
        throw new RangeError(`${name}: expected the same angles in both halves of a head`);
      }
      return first;
    });
  const before = numberOf(golden.config, "prefix");
  return {
    cos: table("inputs.rope_cos"),
    sin: table("inputs.rope_sin"),
    prefix: before,
    dtype: "fp32",
  };
}

function packed(golden: Golden, name: string, entries: readonly number[]): tf.Tensor2D {
  return tf.tidy(() =>
    tf.concat(
      entries.map((entry) => {
        const x = golden.tensor<tf.Tensor3D>(`${name}.${entry}`);
        return tf.reshape(x, [-1, x.shape[2]]) as tf.Tensor2D;
      }),
    ),
  );
}

/** Compares packed rows, which it disposes, entry by entry. */
function checkEntries(
  golden: Golden,
  check: Check,
  name: string,
  rows: tf.Tensor2D,
  groups: readonly SequenceGroup[],
  entries: readonly number[],
): void {
  const width = rows.shape[1];
  const values = rows.dataSync();
  const tolerance = name.startsWith("grads") ? asGradient : asOutput;
  let start = 0;
  for (const [i, entry] of entries.entries()) {
    const { count, length } = groups[i] as SequenceGroup;
    const end = start + count * length * width;
    if (golden.has(`${name}.${entry}`)) {
      check.tensor(`${name}.${entry}`, values.subarray(start, end), tolerance);
    }
    start = end;
  }
  rows.dispose();
}
