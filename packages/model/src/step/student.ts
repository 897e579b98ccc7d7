/** Student forward and backward through the backbone: units outer, local ranks inner. */
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import {
  type BlockSaved,
  blockBackward,
  blockForward,
  blockOf,
  disposeBlock,
} from "../vit/block.js";
import { dropPathRates } from "../vit/config.js";
import {
  type CropGroup,
  type EmbedSaved,
  embed,
  embedBackward,
  sequencesOf,
} from "../vit/embed.js";
import { clsRows, type OutputSaved, output, outputBackward, patchRows } from "../vit/output.js";
import { drawSubset } from "../vit/stochastic-depth.js";
import { cropGroups, maskedRows, type StepContext } from "./context.js";
import type { RankBatch } from "./contract.js";

/** One local rank's student between forward and backward. */
export interface StudentRank {
  readonly batch: RankBatch;
  readonly groups: readonly CropGroup[];
  readonly sequences: readonly SequenceGroup[];
  embedded?: EmbedSaved;
  /** Input of each block, and its activations if they are kept. */
  readonly blocks: { readonly x: tf.Tensor2D; saved: BlockSaved | undefined }[];
  /** [T,D] packed rows: activations on the way up, their gradient on the way down. */
  x?: tf.Tensor2D;
  output?: OutputSaved;
  /** [S,D] normed rows for the losses: cls of local crops, cls of global crops, masked patches. */
  h?: tf.Tensor2D;
}

/** Runs all local ranks up to the normed rows `h`. */
export async function studentForward(ctx: StepContext): Promise<StudentRank[]> {
  const { spec, config, batches, walk, held } = ctx;
  const ranks = batches.map((batch, r): StudentRank => {
    const [global, ...local] = cropGroups(ctx, batch, spec.loss.ibot > 0) as [CropGroup];
    const groups = [{ ...global, patches: ctx.globalPatches[r] as tf.Tensor2D }, ...local];
    return held.hold({ batch, groups, sequences: sequencesOf(config, groups), blocks: [] });
  });
  await walk("student", "embed", (tensors) => {
    for (const rank of ranks) {
      const { x, saved } = embed(config, tensors, rank.groups);
      rank.x = x;
      rank.embedded = saved;
    }
  });
  for (let i = 0; i < config.depth; i++) {
    await walk("student", `block.${i}`, (tensors) => {
      const block = blockOf(config, tensors, `backbone.blocks.${i}`);
      for (const rank of ranks) {
        const x = rank.x as tf.Tensor2D;
        const { y, saved } = blockForward(block, x, rank.sequences, drawRows(ctx, rank, i));
        const keep = spec.engine.activations === "keep";
        if (!keep) disposeBlock(saved);
        rank.blocks.push({ x, saved: keep ? saved : undefined });
        rank.x = y;
      }
    });
  }
  await walk("student", "norm", (tensors) => {
    for (const rank of ranks) {
      const x = rank.x as tf.Tensor2D;
      const { h, saved } = output(config, tensors, x, lossRows(ctx, rank));
      x.dispose();
      delete rank.x;
      rank.h = h;
      rank.output = saved;
    }
  });
  return ranks;
}

/** Takes the gradients dh [S,D] of the normed rows (one per rank, disposed) down to the embedding. */
export async function studentBackward(
  ctx: StepContext,
  ranks: readonly StudentRank[],
  dh: readonly tf.Tensor2D[],
): Promise<void> {
  const { config, deps, walk } = ctx;
  await walk("student", "norm", async (tensors) => {
    for (const [r, rank] of ranks.entries()) {
      const saved = rank.output as OutputSaved;
      const { dx, grads } = outputBackward(config, tensors, dh[r] as tf.Tensor2D, saved);
      rank.x = dx;
      await deps.emitGradient("norm", rank.batch.rank, grads);
    }
  });
  for (let i = config.depth - 1; i >= 0; i--) {
    await walk("student", `block.${i}`, async (tensors) => {
      const block = blockOf(config, tensors, `backbone.blocks.${i}`);
      for (const rank of ranks) {
        const { x, saved: kept } = rank.blocks.pop() as StudentRank["blocks"][number];
        const saved = kept ?? recompute(ctx, block, x, rank, i);
        const dy = rank.x as tf.Tensor2D;
        const { dx, grads } = blockBackward(block, dy, x, rank.sequences, saved);
        x.dispose();
        rank.x = dx;
        await deps.emitGradient(`block.${i}`, rank.batch.rank, grads);
      }
    });
  }
  await walk("student", "embed", async (tensors) => {
    for (const rank of ranks) {
      const saved = rank.embedded as EmbedSaved;
      const dx = rank.x as tf.Tensor2D;
      const grads = embedBackward(config, tensors, rank.groups, saved, dx);
      tf.dispose([
        dx,
        ...saved.groups.flatMap(({ patches, mask }) => (mask ? [patches, mask] : [patches])),
      ]);
      delete rank.x;
      await deps.emitGradient("embed", rank.batch.rank, grads);
    }
  });
}

function recompute(
  ctx: StepContext,
  block: ReturnType<typeof blockOf>,
  x: tf.Tensor2D,
  rank: StudentRank,
  index: number,
): BlockSaved {
  const { y, saved } = blockForward(block, x, rank.sequences, drawRows(ctx, rank, index));
  y.dispose();
  return saved;
}

/** Stochastic depth of a rank and block: the same rows whenever it is asked. */
function drawRows({ spec, chooseSequences }: StepContext, rank: StudentRank, block: number) {
  const rate = dropPathRates(spec.model)[block] as number;
  return (branch: 0 | 1) =>
    drawSubset(rank.sequences, rate, (group, count, keep) =>
      chooseSequences({ rank: rank.batch.rank, block, branch, group }, count, keep),
    );
}

/** Packed rows that enter a loss, in the order of the heads' input. */
function lossRows({ spec, config }: StepContext, { batch, sequences }: StudentRank): number[] {
  const local = sequences.length > 1 ? clsRows(sequences, 1) : [];
  const patches = patchRows(sequences, config.registers, maskedRows(spec, batch));
  return [...local, ...clsRows(sequences, 0), ...patches];
}
