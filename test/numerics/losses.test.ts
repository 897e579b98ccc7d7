/** DINO, iBOT and KoLeo losses, softmax centring and Sinkhorn-Knopp against the reference. */
import { parseRunSpec } from "@paddock/contract";
import {
  applyPending,
  type Centers,
  centredSoftmax,
  crossEntropy,
  dinoTargets,
  koleo,
  launchMeans,
  readMeans,
  type ScoreTargets,
  sinkhorn,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { beforeEach, describe, expect, test } from "vitest";
import {
  asLoss,
  asProbability,
  asStepGradient,
  expectClose,
  expectTensor,
} from "./support/close.js";
import { engines } from "./support/engines.js";
import { type Golden, readGolden } from "./support/safetensors.js";

/** One rank: its vector is the sum. */
const alone = async (_key: string, [vector]: readonly Float32Array[]) => vector as Float32Array;

describe.each(engines)("losses on $name", ({ use }) => {
  beforeEach(use);

  test("DINO: targets, lagging centre, loss and gradient over three steps", async () => {
    const golden = readGolden("dinov2/dino_loss");
    const { temps, out_dim: prototypes, center_momentum: momentum } = golden.config;
    let centers: Centers = emptyCenters(prototypes as number);
    for (const [step, temperature] of (temps as number[]).entries()) {
      const scores = golden.tensor<tf.Tensor2D>(`inputs.step${step}.teacher`);
      centers = applyPending(centers, momentum as number);
      const used = centers.dino as Float32Array;
      expectClose("centre", used, golden.f32(`outputs.step${step}.center_used`), asProbability);
      const soft = centredSoftmax(scores, used, temperature);
      const means = await readMeans(
        launchMeans([scores], []),
        { dino: prototypes as number, ibot: 0, logicalRanks: 1 },
        alone,
      );
      centers = { ...centers, pendingDino: means.dino };
      const assigned = await sinkhornOf(scores, temperature);
      checkTargets(golden, step, soft, assigned);
      checkDino(golden, `step${step}.centering`, step, soft);
      checkDino(golden, `step${step}.sinkhorn`, step, assigned);
      tf.dispose([soft, assigned]);
    }
    const last = applyPending(centers, momentum as number).dino as Float32Array;
    expectClose("last centre", last, golden.f32("outputs.center_final"), asProbability);
  });

  test("iBOT: targets, lagging centre, loss and gradient over three steps", async () => {
    const golden = readGolden("dinov2/ibot_loss");
    const { temps, out_dim: prototypes, center_momentum: momentum } = golden.config;
    let centers: Centers = emptyCenters(prototypes as number);
    for (const [step, temperature] of (temps as number[]).entries()) {
      const scores = golden.tensor<tf.Tensor2D>(`inputs.step${step}.teacher_masked`);
      const zeros = tf.zeros<tf.Rank.R2>([1, 1]);
      centers = applyPending(centers, momentum as number);
      const used = centers.ibot as Float32Array;
      expectClose("centre", used, golden.f32(`outputs.step${step}.center_used`), asProbability);
      const soft = centredSoftmax(scores, used, temperature);
      const sizes = { dino: 1, ibot: prototypes as number, logicalRanks: 1 };
      const means = await readMeans(launchMeans([zeros], [scores]), sizes, alone);
      centers = { ...centers, pendingIbot: means.ibot };
      const assigned = await sinkhornOf(scores, temperature);
      checkTargets(golden, step, soft, assigned);
      checkIbot(golden, `step${step}.centering`, step, soft);
      checkIbot(golden, `step${step}.sinkhorn`, step, assigned);
      tf.dispose([soft, assigned, zeros]);
    }
    const last = applyPending(centers, momentum as number).ibot as Float32Array;
    expectClose("last centre", last, golden.f32("outputs.center_final"), asProbability);
  });

  test("KoLeo: loss, neighbours and gradient", () => {
    const golden = readGolden("dinov2/koleo_loss");
    for (const i of (golden.config.shapes as unknown[]).keys()) {
      const x = golden.tensor<tf.Tensor2D>(`inputs.x.${i}`);
      const { loss, dx, neighbours } = koleo(x, 1);
      expect([...neighbours.dataSync()]).toEqual([...golden.i32(`outputs.neighbour.${i}`)]);
      expectTensor(`loss ${i}`, loss, golden.f32(`outputs.loss.${i}`), asLoss);
      expectTensor(`gradient ${i}`, dx, golden.f32(`grads.x.${i}`), asStepGradient);
      tf.dispose([x, neighbours]);
    }
  });
});

function emptyCenters(prototypes: number): Centers {
  const zeros = new Float32Array(prototypes);
  return { dino: zeros, ibot: zeros, pendingDino: null, pendingIbot: null };
}

/** Sinkhorn-Knopp on one rank; disposes the scores. The recorded scores are not bounded by 1. */
async function sinkhornOf(scores: tf.Tensor2D, temperature: number): Promise<tf.Tensor2D> {
  const bound = Math.max(...(scores.dataSync() as Float32Array));
  const losses = [{ scores: [scores], prototypes: scores.shape[1], bound }];
  const assigned = await sinkhorn(losses, { temperature, iterations: 3 }, alone);
  return assigned[0]?.[0] as tf.Tensor2D;
}

function checkTargets(golden: Golden, step: number, soft: tf.Tensor, assigned: tf.Tensor): void {
  const expected = (name: string) => golden.f32(`outputs.step${step}.${name}`);
  expectClose("softmax", soft.dataSync(), expected("softmax_centered"), asProbability);
  expectClose("Sinkhorn", assigned.dataSync(), expected("sinkhorn_knopp"), asProbability);
}

/** The recorded losses are sums over pairs, and match global rows with the teacher row of the same index. */
function checkDino(golden: Golden, name: string, step: number, teacher: tf.Tensor2D): void {
  const images = golden.config.batch as number;
  const spec = parseRunSpec({
    steps: 1,
    batchPerRank: images,
    data: { path: "unused" },
    crops: { localCount: golden.config.n_local },
  });
  const locals = golden.tensor<tf.Tensor2D>(`inputs.step${step}.student_local`);
  const globals = golden.tensor<tf.Tensor2D>(`inputs.step${step}.student_global`);
  const logits = tf.concat([locals, globals]) as tf.Tensor2D;
  const swapped = tf.tidy(
    () => tf.concat([tf.slice(teacher, images), tf.slice(teacher, 0, images)]) as tf.Tensor2D,
  );
  const run = dinoTargets(spec, swapped);
  const pairs = 2 * (golden.config.n_local as number) + 2;
  const { rows, gradient } = entropyOf(golden, { ...run, logits });
  const localRows = locals.shape[0];
  const sum = (values: Float32Array) => values.reduce((a, b) => a + b, 0);
  const loss = (name_: string) => golden.f32(`outputs.${name}.${name_}`);
  // In a step, global rows weigh 2 / pairs of their mean over 2B rows; the record has the plain mean.
  expectClose("local", [pairs * sum(rows.subarray(0, localRows))], loss("loss_local"), asLoss);
  expectClose("global", [(pairs / 2) * sum(rows.subarray(localRows))], loss("loss_global"), asLoss);
  const split = locals.size;
  const local = gradient.subarray(0, split).map((value) => value * pairs);
  const global = gradient.subarray(split).map((value) => (value * pairs) / 2);
  const expected = (part: string) => golden.f32(`grads.${name}.${part}`);
  expectClose("dlocal", local, expected("student_local"), asStepGradient);
  expectClose("dglobal", global, expected("student_global"), asStepGradient);
  tf.dispose([locals, globals, logits, swapped, run.target]);
}

/** The recorded student has padding rows, whose gradient is zero; here they do not exist. */
function checkIbot(golden: Golden, name: string, step: number, target: tf.Tensor2D): void {
  const [count, prototypes] = target.shape;
  const padded = golden.tensor<tf.Tensor2D>(`inputs.step${step}.student_masked`);
  const logits = tf.slice(padded, 0, count);
  const images = golden.config.images as number;
  const weight = golden.f32(`inputs.step${step}.masks_weight`).map((value) => value / images);
  const index = Int32Array.from({ length: count }, (_, row) => row);
  const { rows, gradient } = entropyOf(golden, { count, target, index, weight, logits });
  const loss = rows.reduce((a, b) => a + b, 0);
  expectClose("loss", [loss], golden.f32(`outputs.${name}.loss_masked`), asLoss);
  const expected = golden.f32(`grads.${name}.student_masked`).subarray(0, count * prototypes);
  expectClose("gradient", gradient, expected, asStepGradient);
  tf.dispose([padded, logits]);
}

function entropyOf(
  golden: Golden,
  run: ScoreTargets & { readonly logits: tf.Tensor2D },
): { rows: Float32Array; gradient: Float32Array } {
  const { logits, target } = run;
  const index = tf.tensor1d(run.index, "int32");
  const weight = tf.tensor1d(run.weight);
  const student = golden.config.student_temp as number;
  const { rows, dlogits } = crossEntropy({ logits, target, index, weight }, student);
  const values = {
    rows: rows.dataSync() as Float32Array,
    gradient: dlogits.dataSync() as Float32Array,
  };
  tf.dispose([index, weight, rows, dlogits]);
  return values;
}
