/** DINO losses: DINO's over consecutive calls; DINOv2's and DINOv3's with both kinds of targets. */
import { parseRunSpec, type RunSpec, scheduleAt } from "@paddock/contract";
import { applyPending, type Centers, centredSoftmax, dinoPairs, dinoTargets } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { asDouble, asLoss, asProbability, asStepGradient, type Check } from "../check.js";
import { onlyKnown } from "../config.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";
import { assigned, batchMean, entropyOf, rowsOf, sumOf, zeroCenters } from "../scores.js";

/** Calls of DINO's loss object, each at an epoch. */
export const dinoLossV1: Kind = {
  name: "dino-loss-v1",
  matches: (golden) => Array.isArray(golden.config.epochs_called),
  async run(golden, check) {
    const { config } = golden;
    onlyKnown("config", config, [
      "out_dim",
      "ncrops",
      "batch",
      "warmup_teacher_temp",
      "teacher_temp",
      "warmup_teacher_temp_epochs",
      "nepochs",
      "student_temp",
      "center_momentum",
      "epochs_called",
    ]);
    const temperatures = Array.from({ length: config.nepochs }, (_, epoch) =>
      temperatureAt(config, epoch),
    );
    check.tensor("outputs.teacher_temp_schedule", temperatures, asDouble);
    const spec = specOf(config.batch, config.ncrops - 2);
    let centers = zeroCenters("dino", config.out_dim);
    for (const [call, epoch] of (config.epochs_called as number[]).entries()) {
      const scores = golden.tensor<tf.Tensor2D>(`inputs.call${call}.teacher_output`);
      centers = applyPending(centers, config.center_momentum);
      const target = centredSoftmax(
        scores,
        centers.dino as Float32Array,
        temperatures[epoch] as number,
      );
      centers = { ...centers, pendingDino: await batchMean("dino", scores) };
      checkCall(golden, check, spec, call, target);
      // DINO updates at the end of a call what is used in the next one: here it is pending until then.
      const after = applyPending(centers, config.center_momentum).dino as Float32Array;
      check.tensor(`outputs.call${call}.center_after`, after, asProbability);
      tf.dispose([scores, target]);
    }
  },
};

// biome-ignore lint/suspicious/noExplicitAny: a config as recorded
function temperatureAt(config: any, epoch: number): number {
  const schedule = {
    kind: "cosine",
    start: config.warmup_teacher_temp,
    peak: config.teacher_temp,
    end: config.teacher_temp,
    warmupSteps: config.warmup_teacher_temp_epochs,
    freezeSteps: 0,
    truncExtra: 0,
    cosineSteps: null,
    stepsPerValue: 1,
  } as const;
  return scheduleAt(schedule, epoch, config.nepochs);
}

function checkCall(
  golden: Golden,
  check: Check,
  spec: RunSpec,
  call: number,
  target: tf.Tensor2D,
): void {
  // Recorded: global crops first. Here: local crops first.
  const student = golden.tensor<tf.Tensor2D>(`inputs.call${call}.student_output`);
  const globals = 2 * spec.batchPerRank;
  const width = student.shape[1];
  const logits = tf.tidy(
    () => tf.concat([tf.slice(student, globals), tf.slice(student, 0, globals)]) as tf.Tensor2D,
  );
  const run = dinoTargets(spec, target);
  const { rows, gradient } = entropyOf(logits, run, golden.config.student_temp);
  const locals = gradient.length - globals * width;
  const ordered = [...gradient.subarray(locals), ...gradient.subarray(0, locals)];
  check.tensor(`outputs.call${call}.loss`, [sumOf(rows)], asLoss);
  check.tensor(`grads.call${call}.student_output`, ordered, asStepGradient);
  tf.dispose([student, logits, run.target]);
}

/** Steps of DINOv2's or DINOv3's loss object. */
export const dinoLoss: Kind = {
  name: "dino-loss",
  matches: (golden) =>
    golden.has("inputs.step0.student_global") && golden.has("inputs.step0.teacher"),
  async run(golden, check) {
    const { config } = golden;
    onlyKnown("config", config, [
      "out_dim",
      "batch",
      "n_global",
      "n_local",
      "temps",
      "student_temp",
      "center_momentum",
    ]);
    check.equal("global crops", config.n_global ?? 2, 2);
    let centers = zeroCenters("dino", config.out_dim);
    for (const [step, temperature] of (config.temps as number[]).entries()) {
      centers = await checkStep(golden, check, step, temperature, centers);
    }
    const last = applyPending(centers, config.center_momentum).dino as Float32Array;
    check.tensor("outputs.center_final", last, asProbability);
  },
};

async function checkStep(
  golden: Golden,
  check: Check,
  step: number,
  temperature: number,
  before: Centers,
): Promise<Centers> {
  const { config } = golden;
  const at = `step${step}`;
  const scores = rowsOf(golden, `inputs.${at}.teacher`, config.out_dim);
  const centers = applyPending(before, config.center_momentum);
  const used = centers.dino as Float32Array;
  check.tensor(`outputs.${at}.center_used`, used, asProbability);
  const soft = centredSoftmax(scores, used, temperature);
  check.tensor(`outputs.${at}.softmax_centered`, tf.clone(soft), asProbability);
  checkWithoutUpdate(golden, check, step, temperature, used);
  const target = await assigned(scores, temperature);
  check.tensor(`outputs.${at}.sinkhorn_knopp`, tf.clone(target), asProbability);
  if (golden.has(`outputs.${at}.loss_global_all_pairs`)) {
    checkMeans(golden, check, step, target);
  } else {
    checkSums(golden, check, step, "centering", soft);
    checkSums(golden, check, step, "sinkhorn", target);
  }
  const pendingDino = await batchMean("dino", scores);
  tf.dispose([scores, soft, target]);
  return { ...centers, pendingDino };
}

/** DINOv3's update_centers=False, which was called when nothing was pending any more. */
function checkWithoutUpdate(
  golden: Golden,
  check: Check,
  step: number,
  temperature: number,
  center: Float32Array,
): void {
  const name = `outputs.step${step}.softmax_centered_no_update`;
  if (!golden.has(name)) return;
  const scores = rowsOf(golden, `inputs.step${step}.teacher`, center.length);
  check.tensor(name, centredSoftmax(scores, center, temperature), asProbability);
  scores.dispose();
}

/** DINOv2: sums over pairs of means over images. Each global row was recorded against the teacher row of its own index. */
function checkSums(
  golden: Golden,
  check: Check,
  step: number,
  centering: string,
  target: tf.Tensor2D,
): void {
  const images = golden.config.batch as number;
  const swapped = tf.tidy(
    () => tf.concat([tf.slice(target, images), tf.slice(target, 0, images)]) as tf.Tensor2D,
  );
  const spec = specOf(images, golden.config.n_local);
  const pairs = 2 * golden.config.n_local + 2;
  const found = lossesOf(golden, step, spec, swapped);
  const at = `step${step}.${centering}`;
  // Global rows were recorded as one mean over 2 B rows, here as two pairs' means over B.
  const factors = { local: pairs, global: pairs / 2 };
  for (const part of ["local", "global"] as const) {
    const scaled = scaledBy(found[part], factors[part]);
    check.tensor(`outputs.${at}.loss_${part}`, [sumOf(scaled.rows)], asLoss);
    if (scaled.gradient.length > 0) {
      check.tensor(`grads.${at}.student_${part}`, scaled.gradient, asStepGradient);
    }
  }
  swapped.dispose();
}

/** DINOv3: means over (student crop, teacher crop, image) triples, with and without pairs of equal crops. */
function checkMeans(golden: Golden, check: Check, step: number, target: tf.Tensor2D): void {
  for (const samePairs of [false, true]) {
    const spec = specOf(golden.config.batch, golden.config.n_local, samePairs);
    const pairs = dinoPairs(spec);
    const all = pairs.local + pairs.global;
    const { local, global } = lossesOf(golden, step, spec, target);
    const form = samePairs ? "all_pairs" : "ignore_diagonal";
    const mean = scaledBy(global, all / pairs.global);
    check.tensor(`outputs.step${step}.loss_global_${form}`, [sumOf(mean.rows)], asLoss);
    check.tensor(`grads.step${step}.global_${form}`, mean.gradient, asStepGradient);
    if (local.rows.length === 0) continue;
    const localMean = scaledBy(local, all / pairs.local);
    check.tensor(`outputs.step${step}.loss_local`, [sumOf(localMean.rows)], asLoss);
    check.tensor(`grads.step${step}.local`, localMean.gradient, asStepGradient);
  }
}

interface Part {
  readonly rows: Float32Array;
  readonly gradient: Float32Array;
}

/** The step's own targets and weights on the recorded scores: local and global rows apart. */
function lossesOf(
  golden: Golden,
  step: number,
  spec: RunSpec,
  target: tf.Tensor2D,
): { readonly local: Part; readonly global: Part } {
  const width = target.shape[1];
  const named = ["local", "global"].map((part) => `inputs.step${step}.student_${part}`);
  const parts = named.filter((name) => golden.has(name)).map((name) => rowsOf(golden, name, width));
  const logits = tf.concat(parts) as tf.Tensor2D;
  const run = dinoTargets(spec, target);
  const { rows, gradient } = entropyOf(logits, run, golden.config.student_temp);
  const locals = rows.length - 2 * spec.batchPerRank;
  tf.dispose([...parts, logits, run.target]);
  return {
    local: { rows: rows.subarray(0, locals), gradient: gradient.subarray(0, locals * width) },
    global: { rows: rows.subarray(locals), gradient: gradient.subarray(locals * width) },
  };
}

function scaledBy({ rows, gradient }: Part, factor: number): Part {
  const scale = (values: Float32Array) => values.map((value) => value * factor);
  return { rows: scale(rows), gradient: scale(gradient) };
}

function specOf(batchPerRank: number, localCount: number, samePairs = false): RunSpec {
  return parseRunSpec({
    steps: 1,
    batchPerRank,
    data: { path: "unused" },
    crops: { localCount },
    loss: { samePairs, koleo: 0 },
  });
}
