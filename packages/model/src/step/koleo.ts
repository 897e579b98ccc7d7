/**
 * KoLeo of the local ranks' global crops, among each rank's own images or among those of a group of ranks.
 * Shapes: B images per rank, L logical ranks, D width.
 */
import { koleoImages } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { groupKoleo, koleo } from "../loss/koleo.js";
import { localRows, type StepContext } from "./context.js";
import type { StudentRank } from "./student.js";

export interface RankKoleo {
  /** One per global crop; not weighted. */
  readonly values: readonly tf.Scalar[];
  /** [2B,D] gradient of the weighted loss by the global cls rows. */
  readonly gradient: tf.Tensor2D;
}

/** One entry per local rank; none without KoLeo. Leaves the students alone. Every worker calls it at one point of its step. */
export async function koleoOfRanks(
  ctx: StepContext,
  students: readonly StudentRank[],
): Promise<RankKoleo[]> {
  const { spec } = ctx;
  if (spec.loss.koleo === 0) return [];
  const alone = koleoImages(spec) === spec.batchPerRank;
  return ctx.held.hold(alone ? aloneKoleo(ctx, students) : await groupedKoleo(ctx, students));
}

function aloneKoleo(ctx: StepContext, students: readonly StudentRank[]): RankKoleo[] {
  const { spec, lossScale } = ctx;
  return students.map((student) =>
    tf.tidy(() => {
      const crops = [0, 1].map((crop) =>
        koleo(cropRows(ctx, student, crop), spec.loss.koleo * lossScale, spec.loss.koleoTopk),
      );
      return {
        values: crops.map(({ loss }) => loss),
        gradient: tf.concat(crops.map(({ dx }) => dx)) as tf.Tensor2D,
      };
    }),
  );
}

/**
 * Each rank's gradient is that of the sum over its group of every rank's own loss, as the official gather has it. All local ranks of
 * a group share one computation, which has the same inputs on every worker: so the numbers do not depend on who computes them.
 */
async function groupedKoleo(
  ctx: StepContext,
  students: readonly StudentRank[],
): Promise<RankKoleo[]> {
  const { spec, lossScale } = ctx;
  const { batchPerRank } = spec;
  const width = ctx.config.width;
  const images = spec.logicalRanks * batchPerRank;
  const gathered = await gatherCls(ctx, students);
  const ranks = koleoImages(spec) / batchPerRank;
  const groupOf = (student: StudentRank): number => Math.floor(student.batch.rank / ranks);
  const computed = new Map<number, { losses: readonly tf.Scalar[]; dx: tf.Tensor2D }[]>();
  return tf.tidy(() => {
    for (const group of new Set(students.map(groupOf))) {
      const crops = [0, 1].map((crop) => {
        const from = (crop * images + group * ranks * batchPerRank) * width;
        const rows = gathered.subarray(from, from + ranks * batchPerRank * width);
        const x = tf.tensor2d(rows, [ranks * batchPerRank, width]);
        return groupKoleo(x, spec.loss.koleo * lossScale, { topk: spec.loss.koleoTopk, ranks });
      });
      computed.set(group, crops);
    }
    return students.map((student) => {
      const crops = computed.get(groupOf(student)) ?? [];
      const at = student.batch.rank % ranks;
      const own = crops.map(({ dx }) =>
        tf.slice(dx, [at * batchPerRank, 0], [batchPerRank, -1]),
      ) as tf.Tensor2D[];
      return {
        values: crops.map(({ losses }) => losses[at] as tf.Scalar),
        gradient: tf.concat(own),
      };
    });
  });
}

/**
 * The global cls rows of all ranks, [2,L B,D] flat, on every worker: each rank adds its own to zeros, so the sum over ranks is an exact
 * gather.
 */
async function gatherCls(
  ctx: StepContext,
  students: readonly StudentRank[],
): Promise<Float32Array> {
  const { spec, config, deps } = ctx;
  const slot = spec.batchPerRank * config.width;
  const perRank: Float32Array[] = [];
  for (const student of students) {
    const vector = new Float32Array(2 * spec.logicalRanks * slot);
    for (const crop of [0, 1]) {
      const rows = cropRows(ctx, student, crop);
      const values = (await rows.data()) as Float32Array;
      rows.dispose();
      vector.set(values, (crop * spec.logicalRanks + student.batch.rank) * slot);
    }
    perRank.push(vector);
  }
  return deps.sumAcrossRanks("koleo", perRank);
}

/** [B,D] normed cls rows of one global crop; a new tensor. */
function cropRows({ spec }: StepContext, student: StudentRank, crop: number): tf.Tensor2D {
  const start = localRows(spec) + crop * spec.batchPerRank;
  return tf.slice(student.h as tf.Tensor2D, [start, 0], [spec.batchPerRank, -1]);
}
