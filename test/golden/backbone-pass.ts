/** A whole backbone forward and backward with every activation in sight. */
import {
  attentionMaps,
  type BranchRows,
  blockBackward,
  blockForward,
  blockOf,
  type CropGroup,
  disposeRotation,
  embed,
  embedBackward,
  type OutputRows,
  output,
  outputBackward,
  patchGrid,
  pixelGradients,
  type RopeDraw,
  type Rotation,
  rotationOf,
  type SequenceGroup,
  sequencesOf,
  type UnitTensors,
  type VitConfig,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { accumulate, type Sums } from "./backbone.js";

export interface Model {
  readonly config: VitConfig;
  readonly tensors: UnitTensors;
}

/** What chance decides in training; nothing of it in evaluation. */
export interface Draws {
  rows?(block: number, branch: 0 | 1, sequences: readonly SequenceGroup[]): BranchRows | undefined;
  rope?(block: number, group: number): RopeDraw;
  /** Local crops are group 1 and have a norm of their own, if the model has. */
  readonly training?: boolean;
}

export interface Pass {
  /** [T,D] packed rows: those after the embedding, then after each block. Disposed by `backward`. */
  readonly rows: readonly tf.Tensor2D[];
  /** After the final norm, of each group; owned by the caller. */
  readonly tokens: readonly GroupTokens[];
  /** [n,heads,N,N] of the last block, if there is one group; owned by the caller. */
  attention(): tf.Tensor4D;
  /** Adds the parameters' gradients for those of the tokens, which it disposes, to `sums`. Gives those of the pixels [n,C,H,W]. */
  backward(cotangents: readonly GroupTokens[], sums: Sums): tf.Tensor4D[];
}

/** P patches of each of n crops. */
export interface GroupTokens {
  /** [n,1 + registers,D]: cls, registers. */
  readonly prefix: tf.Tensor3D;
  /** [n,P,D] */
  readonly patches: tf.Tensor3D;
}

export function passOf(model: Model, groups: readonly CropGroup[], draws: Draws = {}): Pass {
  const { config, tensors } = model;
  const sequences = sequencesOf(config, groups);
  const embedded = embed(config, tensors, groups);
  let x = embedded.x;
  const rows = [x];
  const forwards = Array.from({ length: config.depth }, (_, i) => {
    const input = x;
    const block = blockOf(config, tensors, `backbone.blocks.${i}`);
    const rotation = rotationIn(config, groups, draws, i);
    const draw = (branch: 0 | 1) => draws.rows?.(i, branch, sequences);
    const { y, saved } = blockForward(block, input, sequences, draw, rotation);
    x = y;
    rows.push(x);
    return { block, input, saved, rotation };
  });
  const parts = sequences.flatMap((_, g) => partsOf(config, sequences, g, draws.training ?? false));
  const normed = output(config, tensors, x, parts);
  const tokens = tokensOf(config, sequences, normed.h);
  return {
    rows,
    tokens,
    attention() {
      const saved = forwards.at(-1)?.saved.attention.inner;
      if (!saved) throw new RangeError("no block");
      return attentionMaps(saved.qkv, config.heads, sequences[0] as SequenceGroup);
    },
    backward(cotangents, sums) {
      const down = outputBackward(config, tensors, rowsOf(cotangents), normed.saved);
      accumulate(sums, down.grads);
      let dx = down.dx;
      for (const { block, input, saved, rotation } of forwards.toReversed()) {
        const step = blockBackward(block, dx, input, sequences, saved, rotation);
        dx = step.dx;
        accumulate(sums, step.grads);
        disposeRotation(rotation);
      }
      const dpixels = pixelGradients(config, tensors, groups, embedded.saved, dx);
      accumulate(sums, embedBackward(config, tensors, groups, embedded.saved, dx));
      tf.dispose([dx, ...rows]);
      for (const { patches, mask } of embedded.saved.groups) {
        tf.dispose(mask ? [patches, mask] : [patches]);
      }
      return dpixels.map(channelsFirst);
    },
  };
}

function rotationIn(
  config: VitConfig,
  groups: readonly CropGroup[],
  draws: Draws,
  block: number,
): Rotation | undefined {
  const { rope } = draws;
  const grids = groups.map((group) => patchGrid(config, group));
  return rotationOf(config, grids, rope && ((group) => rope(block, group)));
}

/** All rows of a group: cls and registers sequence by sequence, then its patches. */
function partsOf(
  config: VitConfig,
  sequences: readonly SequenceGroup[],
  group: number,
  training: boolean,
): OutputRows[] {
  const { count, length } = sequences[group] as SequenceGroup;
  const before = sequences.slice(0, group).reduce((sum, s) => sum + s.count * s.length, 0);
  const skipped = 1 + config.registers;
  const rows = (from: number, to: number) =>
    Array.from({ length: count * (to - from) }, (_, i) => {
      const sequence = Math.floor(i / (to - from));
      return before + sequence * length + from + (i % (to - from));
    });
  return [
    { kind: training && group === 1 ? "localCls" : "cls", rows: rows(0, skipped) },
    { kind: "patch", rows: rows(skipped, length) },
  ];
}

/** Cuts what `output` gives for `partsOf` all groups; takes h. */
function tokensOf(
  config: VitConfig,
  sequences: readonly SequenceGroup[],
  h: tf.Tensor2D,
): GroupTokens[] {
  let start = 0;
  const take = (count: number, each: number): tf.Tensor3D => {
    const from = start;
    start += count * each;
    return tf.tidy(() =>
      tf.reshape(tf.slice(h, [from, 0], [count * each, -1]), [count, each, config.width]),
    );
  };
  const skipped = 1 + config.registers;
  const tokens = sequences.map(({ count, length }) => ({
    prefix: take(count, skipped),
    patches: take(count, length - skipped),
  }));
  h.dispose();
  return tokens;
}

/** Undoes `tokensOf`; takes the tokens. */
function rowsOf(tokens: readonly GroupTokens[]): tf.Tensor2D {
  const rows = tf.tidy(() =>
    tf.concat(
      tokens.flatMap(({ prefix, patches }) =>
        [prefix, patches].map((part) => tf.reshape(part, [-1, part.shape[2]]) as tf.Tensor2D),
      ),
    ),
  );
  for (const { prefix, patches } of tokens) tf.dispose([prefix, patches]);
  return rows;
}

function channelsFirst(x: tf.Tensor4D): tf.Tensor4D {
  const turned = tf.transpose(x, [0, 3, 1, 2]);
  x.dispose();
  return turned;
}
