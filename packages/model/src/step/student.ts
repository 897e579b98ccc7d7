/** Student forward and backward through the backbone: units outer, local ranks inner. */
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import type { Rotation } from "../ops/rope.js";
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
  patchGrid,
  sequencesOf,
} from "../vit/embed.js";
import type { Grid } from "../vit/interpolation.js";
import {
  clsRows,
  type OutputRows,
  type OutputSaved,
  output,
  outputBackward,
  patchRows,
} from "../vit/output.js";
import { disposeRotation, isAugmented, rotationOf } from "../vit/rope.js";
import { drawSamples, drawSubset } from "../vit/stochastic-depth.js";
import { cropGroups, maskedRows, type StepContext } from "./context.js";
import type { RankBatch } from "./contract.js";

/** One local rank's student between forward and backward. */
export interface StudentRank {
  readonly batch: RankBatch;
  readonly groups: readonly CropGroup[];
  readonly sequences: readonly SequenceGroup[];
  /** The rotation of every block, if it is one and the same. */
  readonly rotation: Rotation | undefined;
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
    const [global, ...local] = cropGroups(spec, batch, spec.loss.ibot > 0) as [CropGroup];
    const groups = [{ ...global, patches: ctx.globalPatches[r] as tf.Tensor2D }, ...local];
    const rotation = isAugmented(config.rope) ? undefined : rotationOf(config, grids(ctx, groups));
    const sequences = sequencesOf(config, groups);
    return held.hold({ batch, groups, sequences, rotation, blocks: [] });
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
        const { y, saved } = withRotation(ctx, rank, i, (rotation) =>
          blockForward(block, x, rank.sequences, drawRows(ctx, rank, i), rotation),
        );
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
        const { dx, grads } = withRotation(ctx, rank, i, (rotation) =>
          blockBackward(block, dy, x, rank.sequences, saved, rotation),
        );
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
      disposeRotation(rank.rotation);
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
  const { y, saved } = withRotation(ctx, rank, index, (rotation) =>
    blockForward(block, x, rank.sequences, drawRows(ctx, rank, index), rotation),
  );
  y.dispose();
  return saved;
}

function grids({ config }: StepContext, groups: readonly CropGroup[]): Grid[] {
  return groups.map((group) => patchGrid(config, group));
}

/** Runs `use` with the rotation of a rank and block: the same whenever it is asked. */
function withRotation<T>(
  ctx: StepContext,
  { batch, groups, rotation }: StudentRank,
  block: number,
  use: (rotation: Rotation | undefined) => T,
): T {
  if (!isAugmented(ctx.config.rope)) return use(rotation);
  const drawn = rotationOf(ctx.config, grids(ctx, groups), (group) =>
    ctx.drawRope({ rank: batch.rank, block, group }),
  );
  try {
    return use(drawn);
  } finally {
    disposeRotation(drawn);
  }
}

/** Stochastic depth of a rank and block: the same rows whenever it is asked. */
function drawRows(
  { spec, chooseSequences, drawUniforms }: StepContext,
  { batch: { rank }, sequences }: StudentRank,
  block: number,
) {
  const rate = dropPathRates(spec.model)[block] as number;
  return (branch: 0 | 1) =>
    spec.model.dropPathMode === "sample"
      ? drawSamples(sequences, rate, (group, count) =>
          drawUniforms({ rank, block, branch, group }, count),
        )
      : drawSubset(sequences, rate, (group, count, keep) =>
          chooseSequences({ rank, block, branch, group }, count, keep),
        );
}

/** Packed rows that enter a loss, in the order of the heads' input. */
function lossRows({ spec, config }: StepContext, { batch, sequences }: StudentRank): OutputRows[] {
  const patches = patchRows(sequences, config.registers, maskedRows(spec, batch));
  return [
    { kind: "localCls", rows: sequences.length > 1 ? clsRows(sequences, 1) : [] },
    { kind: "cls", rows: clsRows(sequences, 0) },
    { kind: "patch", rows: patches },
  ];
}
