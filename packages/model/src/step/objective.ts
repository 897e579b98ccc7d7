/**
 * The losses of each rank and their backward through the heads. A head is visited once: scores, cross-entropy and gradients
 * in one go. Shapes: B images per rank, n local crops per image, S = n B + 2 B + masked rows, D width, K prototypes.
 */
import { invariant, type RunSpec } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { type HeadLoss, headLoss, headOf, type ScoreTargets } from "../head/head.js";
import { koleo } from "../loss/koleo.js";
import { hasOwnIbotHead, localRows, type StepContext } from "./context.js";
import type { RankBatch, RankLosses } from "./contract.js";
import type { StudentRank } from "./student.js";
import type { RankTargets } from "./teacher.js";

/** What a rank's losses left behind: gradients, and the tensors that hold the loss values until they are read. */
interface RankObjective {
  /** [n B + 2 B (+ masked with a shared head), D] */
  dcls?: tf.Tensor2D;
  /** [masked,D] with a head of its own. */
  dpatches?: tf.Tensor2D;
  dinoRows?: tf.Tensor1D;
  ibotRows?: tf.Tensor1D;
  koleo?: readonly tf.Scalar[];
}

export interface Objective {
  readonly ranks: readonly RankObjective[];
  /** Gradient of each rank's normed rows [S,D]; owned by the caller. */
  readonly dh: readonly tf.Tensor2D[];
}

/** Computes losses and head gradients; disposes the students' `h` and the targets. */
export async function objective(
  ctx: StepContext,
  students: readonly StudentRank[],
  targets: readonly RankTargets[],
): Promise<Objective> {
  const { spec, deps, walk, held } = ctx;
  const temperature = spec.loss.studentTemperature;
  const ranks: RankObjective[] = held.hold(students.map(() => ({})));
  const clsCount = localRows(spec) + 2 * spec.batchPerRank;
  const ownHead = hasOwnIbotHead(spec);
  await walk("student", "dino_head", async (tensors) => {
    const head = headOf(tensors, "dino_head");
    for (const [r, student] of students.entries()) {
      const { h, target } = inputsOf(student, targets[r]);
      const runs = [dinoTargets(spec, target.cls, ctx.lossScale)];
      const ibot = ownHead ? undefined : ibotTargets(ctx, student.batch, target.patches);
      if (ibot) runs.push(ibot);
      const input = ownHead ? tf.slice(h, 0, clsCount) : tf.clone(h);
      const loss = headLoss(head, input, runs, temperature);
      tf.dispose([input, runs[0]?.target as tf.Tensor, target.cls]);
      adoptDino(ctx, ranks[r] as RankObjective, loss, h);
      await deps.emitGradient("dino_head", student.batch.rank, loss.grads);
    }
  });
  if (spec.heads.ibot) await ibotHead(ctx, students, targets, ranks, clsCount);
  const dh = ranks.map((rank) => {
    const { dcls, dpatches } = rank;
    invariant(dcls, "the DINO head gives every rank a gradient");
    if (!dpatches) return dcls;
    const joined = tf.concat([dcls, dpatches]);
    tf.dispose([dcls, dpatches]);
    return joined;
  });
  for (const [r, student] of students.entries()) {
    tf.dispose([student.h, targets[r]?.patches].filter((tensor) => tensor !== undefined));
  }
  return { ranks, dh: held.hold(dh) };
}

/** The losses' values, read once everything has been launched. Disposes their tensors. */
export async function readLosses(ctx: StepContext, { ranks }: Objective): Promise<RankLosses[]> {
  const { spec, batches, lossScale } = ctx;
  const { loss } = spec;
  return Promise.all(
    ranks.map(async (rank, r) => {
      const dino = await valuesOf(rank.dinoRows);
      const ibotRows = await valuesOf(rank.ibotRows);
      const koleos = await Promise.all((rank.koleo ?? []).map(valuesOf));
      const weightedLocal = sum(dino.subarray(0, localRows(spec))) / lossScale;
      const weightedGlobal = sum(dino.subarray(localRows(spec))) / lossScale;
      const weightedIbot = sum(ibotRows) / lossScale;
      const koleoSum = koleos.reduce((total, value) => total + sum(value), 0);
      return {
        rank: (batches[r] as RankBatch).rank,
        total: weightedLocal + weightedGlobal + loss.koleo * koleoSum + weightedIbot,
        dinoLocal: unweighted(weightedLocal, loss.dino),
        dinoGlobal: unweighted(weightedGlobal, loss.dino),
        koleo: koleoSum,
        ibot: unweighted(weightedIbot, loss.ibot),
      };
    }),
  );
}

/** Adds KoLeo's gradient to the global cls rows and stores what the DINO head gave. */
function adoptDino(ctx: StepContext, into: RankObjective, loss: HeadLoss, h: tf.Tensor2D): void {
  const { spec } = ctx;
  const [dinoRows, ibotRows] = loss.rows;
  if (dinoRows) into.dinoRows = dinoRows;
  if (ibotRows) into.ibotRows = ibotRows;
  into.dcls = loss.dh;
  if (spec.loss.koleo === 0) return;
  const before = localRows(spec);
  const count = spec.batchPerRank;
  const outcome = tf.tidy(() => {
    const crops = [0, 1].map((crop) =>
      koleo(tf.slice(h, [before + crop * count, 0], [count, -1]), spec.loss.koleo * ctx.lossScale),
    );
    const gradient = tf.concat(crops.map(({ dx }) => dx));
    const after = loss.dh.shape[0] - before - 2 * count;
    const dcls = tf.add(
      loss.dh,
      tf.pad(gradient, [
        [before, after],
        [0, 0],
      ]),
    ) as tf.Tensor2D;
    return { dcls, values: crops.map((crop) => crop.loss) };
  });
  loss.dh.dispose();
  into.dcls = outcome.dcls;
  into.koleo = outcome.values;
}

/** The iBOT head's loss and gradients. Ranks without masked patches, and runs without iBOT, give zero gradients. */
async function ibotHead(
  ctx: StepContext,
  students: readonly StudentRank[],
  targets: readonly RankTargets[],
  ranks: readonly RankObjective[],
  clsCount: number,
): Promise<void> {
  const { spec, deps, walk } = ctx;
  if (spec.loss.ibot === 0) {
    for (const { batch } of students) await deps.emitGradient("ibot_head", batch.rank, {});
    return;
  }
  await walk("student", "ibot_head", async (tensors) => {
    const head = headOf(tensors, "ibot_head");
    for (const [r, student] of students.entries()) {
      const { h, target } = inputsOf(student, targets[r]);
      const run = ibotTargets(ctx, student.batch, target.patches);
      if (!run) {
        await deps.emitGradient("ibot_head", student.batch.rank, {});
        continue;
      }
      const input = tf.slice(h, clsCount);
      const loss = headLoss(head, input, [run], spec.loss.studentTemperature);
      input.dispose();
      const into = ranks[r] as RankObjective;
      into.dpatches = loss.dh;
      into.ibotRows = loss.rows[0] as tf.Tensor1D;
      await deps.emitGradient("ibot_head", student.batch.rank, loss.grads);
    }
  });
}

function inputsOf(student: StudentRank, target: RankTargets | undefined) {
  invariant(student.h && target, "a rank has rows and targets before its losses");
  return { h: student.h, target };
}

/**
 * Cross-entropy of all student views against the other teacher views (DINO, eq. 3), normalised jointly: each pair weighs
 * 1 / number of pairs. A local crop meets both teacher views, whose probabilities are added up first;
 * a global crop meets the other one. The caller disposes `target`. `lossScale` multiplies the loss.
 */
export function dinoTargets(spec: RunSpec, cls: tf.Tensor2D, lossScale = 1): ScoreTargets {
  const { batchPerRank: images, loss, crops } = spec;
  const locals = localRows(spec);
  const pairs = 2 * crops.localCount + 2;
  const count = locals + 2 * images;
  const target = tf.tidy(() => {
    if (locals === 0) return tf.clone(cls);
    const both = tf.add(tf.slice(cls, 0, images), tf.slice(cls, images, images));
    return tf.concat([cls, both]) as tf.Tensor2D;
  });
  const index = Int32Array.from({ length: count }, (_, row) =>
    row < locals ? 2 * images + (row % images) : (row - locals + images) % (2 * images),
  );
  const weight = new Float32Array(count).fill((lossScale * loss.dino) / (pairs * images));
  return { count, target, index, weight };
}

/** Cross-entropy at masked patches, each weighed by 1 / (masked patches of its crop), over all 2B crops. */
function ibotTargets(
  { spec, lossScale }: StepContext,
  batch: RankBatch,
  patches: tf.Tensor2D | undefined,
): ScoreTargets | undefined {
  if (!patches) return undefined;
  const count = batch.maskRows.length;
  const factor = (lossScale * spec.loss.ibot) / (2 * spec.batchPerRank);
  return {
    count,
    target: patches,
    index: Int32Array.from({ length: count }, (_, row) => row),
    weight: batch.maskWeights.map((weight) => weight * factor),
  };
}

async function valuesOf(tensor: tf.Tensor | undefined): Promise<Float32Array> {
  if (!tensor) return new Float32Array(0);
  const values = (await tensor.data()) as Float32Array;
  tensor.dispose();
  return values;
}

function sum(values: Float32Array): number {
  return values.reduce((total, value) => total + value, 0);
}

function unweighted(value: number, weight: number): number {
  return weight === 0 ? 0 : value / weight;
}
