/** Features of images from the teacher, without heads: for k-NN, reports and exports. */
import type { Layout, RunSpec } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "./ops/attention.js";
import type { Rotation } from "./ops/rope.js";
import type { Gathered, UnitTensors } from "./tensors.js";
import { blockForward, blockOf, disposeBlock, dropNothing } from "./vit/block.js";
import { type VitConfig, vitConfigOf } from "./vit/config.js";
import { type CropGroup, embed, patchGrid, sequencesOf } from "./vit/embed.js";
import { clsRows, output, patchRows } from "./vit/output.js";
import { disposeRotation, rotationOf } from "./vit/rope.js";

export interface FeatureArgs {
  readonly spec: RunSpec;
  readonly layout: Layout;
  /** The teacher's (or student's) parameters of a unit. */
  gather(unit: string): Promise<Gathered>;
  /** [N,H,W,C] normalised pixels. */
  readonly images: Float32Array;
  /** N */
  readonly count: number;
  /** H = W, in pixels: any multiple of the patch size. */
  readonly size: number;
  /** Also return the last block's attention maps. */
  readonly withAttention?: boolean;
}

/** All owned by the caller. P patches per image, row by row. */
export interface Features {
  /** [N,D] after the final norm. */
  readonly cls: tf.Tensor2D;
  /** [N,P,D] after the final norm. */
  readonly patches: tf.Tensor3D;
  /** [N,heads,P] attention of the last block's cls token to the patches; a row sums to 1 with cls and registers. */
  readonly attention?: tf.Tensor3D;
}

/** The backbone in evaluation mode: no masks, no stochastic depth. */
export async function features(args: FeatureArgs): Promise<Features> {
  const config = vitConfigOf(args.spec);
  const { size } = args;
  const groups = [{ pixels: args.images, count: args.count, height: size, width: size }];
  const sequences = sequencesOf(config, groups);
  const held: Held = {};
  try {
    await runBlocks(args, config, groups, held);
    const x = held.x as tf.Tensor2D;
    const tokens = await using(args, "norm", (tensors) =>
      splitTokens(config, tensors, x, sequences),
    );
    x.dispose();
    return { ...tokens, ...(held.attention ? { attention: held.attention } : {}) };
  } catch (error) {
    tf.dispose([held.x, held.attention, held.rotation?.cos, held.rotation?.sin] as tf.Tensor[]);
    throw error;
  }
}

/** What is alive between awaits. */
interface Held {
  x?: tf.Tensor2D;
  attention?: tf.Tensor3D;
  rotation?: Rotation;
}

/** Embedding and blocks; what they made is in `held` whenever an await is pending. */
async function runBlocks(
  args: FeatureArgs,
  config: VitConfig,
  groups: readonly CropGroup[],
  held: Held,
): Promise<void> {
  const sequences = sequencesOf(config, groups);
  await using(args, "embed", (tensors) => {
    held.x = tf.tidy(() => embed(config, tensors, groups).x);
  });
  const rotation = rotationOf(
    config,
    groups.map((group) => patchGrid(config, group)),
  );
  if (rotation) held.rotation = rotation;
  for (let i = 0; i < config.depth; i++) {
    await using(args, `block.${i}`, (tensors) => {
      const block = blockOf(config, tensors, `backbone.blocks.${i}`);
      const x = held.x as tf.Tensor2D;
      const { y, saved } = blockForward(block, x, sequences, dropNothing, rotation);
      if (args.withAttention && i === config.depth - 1) {
        held.attention = clsAttention(config, saved.attention.inner.qkv, sequences);
      }
      disposeBlock(saved);
      x.dispose();
      held.x = y;
    });
  }
  disposeRotation(rotation);
}

async function using<T>(
  args: FeatureArgs,
  unit: string,
  use: (tensors: UnitTensors) => T,
): Promise<T> {
  const gathered = await args.gather(unit);
  try {
    return use(gathered.tensors);
  } finally {
    gathered.release();
  }
}

function splitTokens(
  config: VitConfig,
  tensors: UnitTensors,
  x: tf.Tensor2D,
  sequences: readonly SequenceGroup[],
): { cls: tf.Tensor2D; patches: tf.Tensor3D } {
  const { count, length } = sequences[0] as SequenceGroup;
  const skipped = 1 + config.registers;
  const patches = length - skipped;
  const all = Array.from({ length: count * patches }, (_, i) => i);
  return tf.tidy(() => {
    const { h } = output(config, tensors, x, [
      { kind: "cls", rows: clsRows(sequences, 0) },
      { kind: "patch", rows: patchRows(sequences, config.registers, all) },
    ]);
    const rows = tf.slice(h, [count, 0]);
    return {
      cls: tf.slice(h, [0, 0], [count, -1]),
      patches: tf.reshape(rows, [count, patches, config.width]) as tf.Tensor3D,
    };
  });
}

/** softmax over all tokens of (cls query . keys), of which the patches' part [N,heads,P]. */
function clsAttention(
  config: VitConfig,
  qkv: tf.Tensor2D,
  sequences: readonly SequenceGroup[],
): tf.Tensor3D {
  const { count, length } = sequences[0] as SequenceGroup;
  const { heads, width } = config;
  const skipped = 1 + config.registers;
  return tf.tidy(() => {
    const perHead = tf.reshape(qkv, [count, length, 3 * heads, width / heads]);
    const query = tf.slice(perHead, [0, 0, 0, 0], [count, 1, heads, -1]);
    const keys = tf.slice(perHead, [0, 0, heads, 0], [count, length, heads, -1]);
    const scores = tf.div(tf.sum(tf.mul(keys, query), 3), Math.sqrt(width / heads));
    const attention = tf.softmax(tf.transpose(scores, [0, 2, 1]));
    return tf.slice(attention, [0, 0, skipped], [count, heads, length - skipped]) as tf.Tensor3D;
  });
}
