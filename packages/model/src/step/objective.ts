/**
 * The losses of each rank and their backward through the heads. A head is visited once: scores, cross-entropy and gradients
 * in one go. Shapes: B images per rank, n local crops per image, S = n B + 2 B + masked rows, D width, K prototypes.
 */
import { invariant, type RunSpec } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { type Head, headOf } from "../head/head.js";
import { type HeadLoss, headLoss, type ScoreTargets } from "../head/loss.js";
import type { UnitTensors } from "../tensors.js";
import { hasOwnIbotHead, localRows, observeRanks, type StepContext } from "./context.js";
import type { RankBatch, RankLosses } from "./contract.js";
import { rankGram } from "./gram.js";
import { koleoOfRanks, type RankKoleo } from "./koleo.js";
import { dinoTargets, ibotTargets } from "./score-targets.js";
import type { StudentRank } from "./student.js";
import type { RankTargets } from "./teacher.js";

/** What a rank's losses left behind: gradients, and the tensors that hold the loss values until they are read. */
interface RankObjective {
  /** [n B + 2 B (+ masked with a shared head), D] */
  dcls?: tf.Tensor2D;
  /** [masked,D] with a head of its own. */
  dpatches?: tf.Tensor2D;
  /** [G,D] of the Gram loss's patches. */
  dgram?: tf.Tensor2D;
  dinoRows?: tf.Tensor1D;
  ibotRows?: tf.Tensor1D;
  koleo?: readonly tf.Scalar[];
  gram?: tf.Scalar;
}

export interface Objective {
  readonly ranks: readonly RankObjective[];
  /** Gradient of each rank's normed rows [S,D]; owned by the caller. */
  readonly dh: readonly tf.Tensor2D[];
}

/**
 * Computes losses and head gradients; disposes the students' `h` and the targets.
 * @param gramTargets [G,D] the gram teacher's patches of each rank
 */
export async function objective(
  ctx: StepContext,
  students: readonly StudentRank[],
  targets: readonly RankTargets[],
  gramTargets: readonly tf.Tensor2D[] | undefined,
): Promise<Objective> {
  const { spec, deps, walk, held, scalars, lossScale } = ctx;
  const temperature = spec.loss.studentTemperature;
  const { localWeight } = scalars;
  const koleos = await koleoOfRanks(ctx, students);
  const ranks: RankObjective[] = held.hold(students.map(() => ({})));
  const clsCount = localRows(spec) + 2 * spec.batchPerRank;
  const ownHead = hasOwnIbotHead(spec);
  const headRows = students.map(({ h }, r) => rowsOf(h) - rowsOf(gramTargets?.[r]));
  if (gramTargets) gramObjective(ctx, students, gramTargets, ranks);
  await walk("student", "dino_head", async (tensors) => {
    const head = studentHead(spec, tensors, "dino_head");
    for (const [r, student] of students.entries()) {
      const { h, target } = inputsOf(student, targets[r]);
      const runs = [dinoTargets(spec, target.cls, { lossScale, localWeight })];
      const ibot = ownHead ? undefined : ibotRun(ctx, student.batch, target.patches);
      if (ibot) runs.push(ibot);
      const input = tf.slice(h, 0, ownHead ? clsCount : headRows[r]);
      const loss = headLoss(head, input, runs, temperature);
      tf.dispose([input, runs[0]?.target as tf.Tensor, target.cls]);
      adoptDino(ctx, ranks[r] as RankObjective, loss, koleos[r]);
      await deps.emitGradient("dino_head", student.batch.rank, loss.grads);
    }
  });
  if (spec.heads.ibot) await ibotHead(ctx, students, targets, ranks, clsCount);
  const dh = ranks.map(({ dcls, dpatches, dgram }) => {
    invariant(dcls, "the DINO head gives every rank a gradient");
    const parts = [dcls, dpatches, dgram].filter((part) => part !== undefined);
    if (parts.length === 1) return dcls;
    const joined = tf.concat(parts);
    tf.dispose(parts);
    return joined;
  });
  for (const [r, student] of students.entries()) {
    tf.dispose([student.h, targets[r]?.patches].filter((tensor) => tensor !== undefined));
  }
  return { ranks, dh: held.hold(dh) };
}

/** The losses' values, read once everything has been launched. Disposes their tensors. */
export async function readLosses(ctx: StepContext, { ranks }: Objective): Promise<RankLosses[]> {
  const { spec, batches, lossScale, scalars } = ctx;
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
      const gram = sum(await valuesOf(rank.gram));
      const others = weightedIbot + scalars.gramWeight * gram;
      return {
        rank: (batches[r] as RankBatch).rank,
        total: weightedLocal + weightedGlobal + loss.koleo * koleoSum + others,
        dinoLocal: unweighted(weightedLocal, loss.dino * scalars.localWeight),
        dinoGlobal: unweighted(weightedGlobal, loss.dino),
        koleo: koleoSum,
        ibot: unweighted(weightedIbot, loss.ibot),
        gram,
      };
    }),
  );
}

/** Adds KoLeo's gradient to the global cls rows and stores what the DINO head gave. */
function adoptDino(
  ctx: StepContext,
  into: RankObjective,
  loss: HeadLoss,
  koleo: RankKoleo | undefined,
): void {
  const [dinoRows, ibotRows] = loss.rows;
  if (dinoRows) into.dinoRows = dinoRows;
  if (ibotRows) into.ibotRows = ibotRows;
  into.dcls = loss.dh;
  if (!koleo) return;
  const before = localRows(ctx.spec);
  into.dcls = tf.tidy(() => {
    const after = loss.dh.shape[0] - before - koleo.gradient.shape[0];
    const padded = tf.pad(koleo.gradient, [
      [before, after],
      [0, 0],
    ]);
    return tf.add(loss.dh, padded);
  });
  tf.dispose([loss.dh, koleo.gradient]);
  into.koleo = koleo.values;
}

/** The Gram loss of each rank; disposes the teacher's patches. */
function gramObjective(
  ctx: StepContext,
  students: readonly StudentRank[],
  teachers: readonly tf.Tensor2D[],
  ranks: readonly RankObjective[],
): void {
  for (const [r, { h }] of students.entries()) {
    const teacher = teachers[r] as tf.Tensor2D;
    const student = tf.slice(h as tf.Tensor2D, rowsOf(h) - teacher.shape[0]);
    observeRanks(ctx, "gram-student", atRank(r, student));
    observeRanks(ctx, "gram-teacher", atRank(r, teacher));
    const { value, gradient } = rankGram(ctx, student, teacher);
    tf.dispose([student, teacher]);
    Object.assign(ranks[r] as RankObjective, { gram: value, dgram: gradient });
  }
}

function atRank(r: number, tensor: tf.Tensor): (tf.Tensor | undefined)[] {
  return [...new Array<undefined>(r), tensor];
}

function rowsOf(h: tf.Tensor2D | undefined): number {
  return h?.shape[0] ?? 0;
}

/** A head with what the spec says about its gradients. */
function studentHead(spec: RunSpec, tensors: UnitTensors, name: "dino_head" | "ibot_head"): Head {
  const head = name === "ibot_head" ? spec.heads.ibot : spec.heads.dino;
  return headOf(tensors, name, { freezeMagnitude: head?.freezeMagnitude ?? false });
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
    const head = studentHead(spec, tensors, "ibot_head");
    for (const [r, student] of students.entries()) {
      const { h, target } = inputsOf(student, targets[r]);
      const run = ibotRun(ctx, student.batch, target.patches);
      if (!run) {
        await deps.emitGradient("ibot_head", student.batch.rank, {});
        continue;
      }
      const input = tf.slice(h, clsCount, run.count);
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

/** Undefined for a rank without masked patches. */
function ibotRun(
  { spec, lossScale }: StepContext,
  batch: RankBatch,
  patches: tf.Tensor2D | undefined,
): ScoreTargets | undefined {
  if (!patches) return undefined;
  const options = { crops: 2 * spec.batchPerRank, factor: lossScale * spec.loss.ibot };
  return ibotTargets(patches, batch.maskWeights, options);
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
