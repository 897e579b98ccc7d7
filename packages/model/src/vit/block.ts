/** A Transformer block on packed rows [T,D]: attention branch, then feed-forward branch. */
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import type { Rotation } from "../ops/rope.js";
import { optionalParameter, type UnitTensors } from "../tensors.js";
import {
  type AttentionSaved,
  attentionBranch,
  type FeedForwardSaved,
  feedForwardBranch,
} from "./branches.js";
import type { VitConfig } from "./config.js";
import { type Grads, normLayer } from "./layers.js";
import { type ResidualLayer, type ResidualSaved, residual, residualBackward } from "./residual.js";
import type { BranchRows } from "./stochastic-depth.js";

export interface Block {
  readonly attention: ResidualLayer<AttentionSaved>;
  readonly feedForward: ResidualLayer<FeedForwardSaved>;
}

/** Activations of a block between forward and backward; owned by whoever called `blockForward`. */
export interface BlockSaved {
  readonly attention: ResidualSaved<AttentionSaved>;
  /** [T,D] between the branches. */
  readonly middle: tf.Tensor2D;
  readonly feedForward: ResidualSaved<FeedForwardSaved>;
}

/** Draws the rows of a branch; undefined where nothing is dropped. */
export type DrawRows = (branch: 0 | 1) => BranchRows | undefined;

export const dropNothing: DrawRows = () => undefined;

/** The block whose parameters are `<prefix>.norm1.weight` and so on. */
export function blockOf(
  config: Pick<VitConfig, "heads" | "normEps" | "ffn" | "maskKeyBias">,
  tensors: UnitTensors,
  prefix: string,
): Block {
  const gamma = (name: string) => {
    const value = optionalParameter<tf.Tensor1D>(tensors, `${prefix}.${name}.gamma`);
    return value && { name: `${prefix}.${name}.gamma`, value };
  };
  return {
    attention: {
      norm: normLayer(tensors, `${prefix}.norm1`, config.normEps),
      inner: attentionBranch(tensors, prefix, config),
      gamma: gamma("ls1"),
    },
    feedForward: {
      norm: normLayer(tensors, `${prefix}.norm2`, config.normEps),
      inner: feedForwardBranch(tensors, prefix, config.ffn),
      gamma: gamma("ls2"),
    },
  };
}

/** y [T,D] from x [T,D]. Leaves x and `rotation` to the caller, who needs them again for backward. */
export function blockForward(
  block: Block,
  x: tf.Tensor2D,
  groups: readonly SequenceGroup[],
  draw: DrawRows,
  rotation?: Rotation,
): { readonly y: tf.Tensor2D; readonly saved: BlockSaved } {
  const first = residual(block.attention, x, { groups, rotation }, draw(0));
  const second = residual(block.feedForward, first.y, { groups }, draw(1));
  return {
    y: second.y,
    saved: { attention: first.saved, middle: first.y, feedForward: second.saved },
  };
}

/** dx [T,D] and the parameters' gradients for dy [T,D]. Disposes dy and `saved`, leaves x and `rotation` to the caller. */
export function blockBackward(
  block: Block,
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  groups: readonly SequenceGroup[],
  saved: BlockSaved,
  rotation?: Rotation,
): { readonly dx: tf.Tensor2D; readonly grads: Grads } {
  const grads: Grads = {};
  const { middle } = saved;
  const dmiddle = residualBackward(
    block.feedForward,
    dy,
    middle,
    { groups },
    saved.feedForward,
    grads,
  );
  disposeAll(dy, middle, saved.feedForward);
  const dx = residualBackward(
    block.attention,
    dmiddle,
    x,
    { groups, rotation },
    saved.attention,
    grads,
  );
  disposeAll(dmiddle, saved.attention);
  return { dx, grads };
}

/** Disposes everything in `saved`. */
export function disposeBlock(saved: BlockSaved): void {
  disposeAll(saved);
}

function disposeAll(...containers: readonly object[]): void {
  for (const container of containers) tf.dispose(container as tf.TensorContainer);
}
