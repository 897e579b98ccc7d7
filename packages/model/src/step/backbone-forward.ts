/** A backbone without gradients, on all local ranks: teachers of all kinds. Evaluation mode: no masks, nothing dropped. */
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import { blockForward, blockOf, disposeBlock, dropNothing } from "../vit/block.js";
import type { VitConfig } from "../vit/config.js";
import { type CropGroup, embed, patchGrid, sequencesOf } from "../vit/embed.js";
import { disposeOutput, type OutputRows, output } from "../vit/output.js";
import { disposeRotation, rotationOf } from "../vit/rope.js";
import type { StepContext } from "./context.js";
import type { Side } from "./contract.js";

export interface BackbonePass {
  readonly side: Side;
  readonly config: VitConfig;
  /** The crops of each local rank: one group, patches given or not. */
  readonly crops: readonly CropGroup[];
  /** Packed rows of a rank that are wanted after the final norm. */
  rowsOf(rank: number, sequences: readonly SequenceGroup[]): readonly OutputRows[];
}

/** Normed rows [S,D] of each local rank; held by the context, owned by the caller. */
export async function backboneForward(
  ctx: StepContext,
  pass: BackbonePass,
): Promise<tf.Tensor2D[]> {
  const { side, config, crops } = pass;
  const { walk, held } = ctx;
  const sequences = crops.map((group) => sequencesOf(config, [group]));
  const rows: tf.Tensor2D[] = held.hold([]);
  // One for all ranks: a constant, their crops being of one size.
  const grids = crops.slice(0, 1).map((group) => patchGrid(config, group));
  const { rotation } = held.hold({ rotation: rotationOf(config, grids) });
  await walk(side, "embed", (tensors) => {
    for (const group of crops) rows.push(tf.tidy(() => embed(config, tensors, [group]).x));
  });
  for (let i = 0; i < config.depth; i++) {
    await walk(side, `block.${i}`, (tensors) => {
      const block = blockOf(config, tensors, `backbone.blocks.${i}`);
      replaceEach(rows, (x, r) => {
        const { y, saved } = blockForward(block, x, sequences[r] ?? [], dropNothing, rotation);
        disposeBlock(saved);
        return y;
      });
    });
  }
  await walk(side, "norm", (tensors) => {
    replaceEach(rows, (x, r) => {
      const wanted = pass.rowsOf(r, sequences[r] ?? []);
      const { h, saved } = output(config, tensors, x, wanted);
      disposeOutput(saved);
      return h;
    });
  });
  disposeRotation(rotation);
  return rows;
}

/** Replaces each rank's rows by their successor and disposes them. */
function replaceEach(
  rows: tf.Tensor2D[],
  next: (x: tf.Tensor2D, rank: number) => tf.Tensor2D,
): void {
  for (const [r, x] of rows.entries()) {
    rows[r] = next(x, r);
    x.dispose();
  }
}
