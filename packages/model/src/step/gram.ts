/**
 * The Gram loss in a training step: which patches take part, the teacher's side of them, and the loss with its gradient.
 * Shapes: B images per rank, P patches of a global crop, G patches that take part, D width.
 */
import { invariant } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { gramLoss, gramPatches, resizePatches } from "../loss/gram.js";
import { type CropGroup, patchify } from "../vit/embed.js";
import { patchRows } from "../vit/output.js";
import { backboneForward } from "./backbone-forward.js";
import { cropGroups, maskedRows, type StepContext } from "./context.js";
import type { RankBatch } from "./contract.js";

/** Flat patches i * P + p of a rank's global crops that take part, in order; empty without the loss. */
export function gramRows({ spec }: StepContext, batch: RankBatch, patches: number): Int32Array {
  const { gram } = spec.loss;
  if (!gram) return new Int32Array(0);
  const all = 2 * spec.batchPerRank * patches;
  const chosen = gramPatches(gram.tokens, maskedRows(spec, batch), all);
  return chosen ?? Int32Array.from({ length: all }, (_, row) => row);
}

/** Patches of a global crop. */
export function patchesPerCrop(ctx: StepContext): number {
  const [global] = cropGroups(ctx, ctx.batches[0] as RankBatch, false) as [CropGroup];
  return (global.height / ctx.config.patchSize) * (global.width / ctx.config.patchSize);
}

/**
 * The frozen gram teacher's patches [G,D] of each rank, on the student's grid; undefined unless there is one (with the EMA teacher they
 * come with its forward pass).
 */
export async function frozenGramTargets(ctx: StepContext): Promise<tf.Tensor2D[] | undefined> {
  const { spec, batches, config, held } = ctx;
  const { gram } = spec.loss;
  if (gram?.teacher !== "frozen") return undefined;
  const crops = batches.map((batch, r) => gramCrops(ctx, batch, r));
  const images = 2 * spec.batchPerRank;
  const rows = await backboneForward(ctx, {
    side: "frozen",
    config,
    crops,
    rowsOf: (_r, sequences) => {
      const patches = (sequences[0]?.length ?? 0) - 1 - config.registers;
      const all = Array.from({ length: images * patches }, (_, row) => row);
      return [{ kind: "patch", rows: patchRows(sequences, config.registers, all) }];
    },
  });
  const target = patchesPerCrop(ctx);
  return held.hold(
    rows.map((h, r) => {
      const [group, batch] = [crops[r] as CropGroup, batches[r] as RankBatch];
      const side = group.height / config.patchSize;
      const chosen = tf.tidy(() => {
        const own: tf.Tensor3D = tf.reshape(h, [images, side * side, config.width]);
        const resized = resizePatches(own, side, Math.sqrt(target), gram);
        const flat = tf.reshape(resized, [images * target, config.width]);
        const index = tf.tensor1d(gramRows(ctx, batch, target), "int32");
        return gram.tokens === "all" ? tf.clone(flat) : tf.gather(flat, index);
      });
      tf.dispose(group.patches === ctx.globalPatches[r] ? h : [h, group.patches as tf.Tensor]);
      return chosen as tf.Tensor2D;
    }),
  );
}

function gramCrops(ctx: StepContext, batch: RankBatch, r: number): CropGroup {
  const { spec, config } = ctx;
  const [global] = cropGroups(ctx, batch, false) as [CropGroup];
  if (!batch.gramCrops) return { ...global, patches: ctx.globalPatches[r] as tf.Tensor2D };
  const images = 2 * spec.batchPerRank;
  const side = Math.sqrt(batch.gramCrops.length / (images * spec.model.channels));
  invariant(Number.isInteger(side), "gram teacher crops are square");
  const group = { pixels: batch.gramCrops, count: images, height: side, width: side };
  return { ...group, patches: ctx.held.hold([patchify(config, group)])[0] as tf.Tensor2D };
}

export interface RankGram {
  /** Not weighted. */
  readonly value: tf.Scalar;
  /** [G,D] gradient of the weighted loss by the student's normed patches. */
  readonly gradient: tf.Tensor2D;
}

/** @param student, teacher [G,D] normed patches; left to the caller. */
export function rankGram(ctx: StepContext, student: tf.Tensor2D, teacher: tf.Tensor2D): RankGram {
  const { spec, scalars, lossScale } = ctx;
  const { gram } = spec.loss;
  invariant(gram, "the Gram loss is on");
  const weight = scalars.gramWeight * lossScale;
  return tf.tidy(() => {
    if (!gram.imageLevel) {
      const { loss, dx } = gramLoss(student, teacher, gram, weight);
      return { value: loss, gradient: dx };
    }
    const byImage = (x: tf.Tensor2D): tf.Tensor3D =>
      tf.reshape(x, [2 * spec.batchPerRank, -1, x.shape[1]]);
    const { loss, dx } = gramLoss(byImage(student), byImage(teacher), gram, weight);
    return { value: loss, gradient: tf.reshape(dx, student.shape) as tf.Tensor2D };
  });
}
