/** iBOT losses of DINOv2 and DINOv3: targets, centre, losses at masked patches and over all patches. */
import { applyPending, type Centers, centredSoftmax, ibotTargets } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { asLoss, asProbability, asStepGradient, type Check } from "../check.js";
import { onlyKnown } from "../config.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";
import { assigned, batchMean, entropyOf, rowsOf, sumOf, zeroCenters } from "../scores.js";

export const ibotLoss: Kind = {
  name: "ibot-loss",
  matches: (golden) => golden.has("inputs.step0.teacher_masked"),
  async run(golden, check) {
    const { config } = golden;
    onlyKnown("config", config, [
      "out_dim",
      "images",
      "tokens",
      "temps",
      "student_temp",
      "center_momentum",
      "upperbound_extra",
    ]);
    let centers = zeroCenters("ibot", config.out_dim);
    for (const [step, temperature] of (config.temps as number[]).entries()) {
      centers = await checkStep(golden, check, step, temperature, centers);
    }
    const last = applyPending(centers, config.center_momentum).ibot as Float32Array;
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
  const at = `step${step}`;
  const scores = golden.tensor<tf.Tensor2D>(`inputs.${at}.teacher_masked`);
  const centers = applyPending(before, golden.config.center_momentum);
  const used = centers.ibot as Float32Array;
  if (golden.has(`outputs.${at}.center_used`)) {
    check.tensor(`outputs.${at}.center_used`, used, asProbability);
  }
  const soft = centredSoftmax(scores, used, temperature);
  check.tensor(`outputs.${at}.softmax_centered`, tf.clone(soft), asProbability);
  const target = await assigned(scores, temperature);
  check.tensor(`outputs.${at}.sinkhorn_knopp`, tf.clone(target), asProbability);
  if (golden.has(`outputs.${at}.loss_masked`)) {
    checkMasked(golden, check, at, at, target); // DINOv3 was recorded with Sinkhorn's targets only
  } else {
    checkMasked(golden, check, at, `${at}.centering`, soft);
    checkMasked(golden, check, at, `${at}.sinkhorn`, target);
  }
  checkDefaultWeight(golden, check, at, soft);
  if (golden.has(`outputs.${at}.loss_full`)) checkFull(golden, check, at);
  const pendingIbot = await batchMean("ibot", scores);
  tf.dispose([scores, soft, target]);
  return { ...centers, pendingIbot };
}

/** The recorded student may have padding rows, whose gradient is zero; here they do not exist. */
function checkMasked(
  golden: Golden,
  check: Check,
  at: string,
  name: string,
  target: tf.Tensor2D,
): void {
  const weights = golden.f32(`inputs.${at}.masks_weight`);
  const { loss, gradient } = maskedLoss(golden, at, target, weights);
  check.tensor(`outputs.${name}.loss_masked`, [loss], asLoss);
  check.tensor(`grads.${name}.student_masked`, gradient, asStepGradient);
}

/** Without given weights the official loss computes them from the mask. Recorded with the targets of softmax centring. */
function checkDefaultWeight(golden: Golden, check: Check, at: string, target: tf.Tensor2D): void {
  const name = `outputs.${at}.loss_masked_default_weight`;
  if (!golden.has(name)) return;
  const { loss } = maskedLoss(golden, at, target, weightsOf(golden, at));
  check.tensor(name, [loss], asLoss);
}

/** The loss over all patches of all images: those that are not masked weigh nothing. */
function checkFull(golden: Golden, check: Check, at: string): void {
  const mask = golden.u8(`inputs.${at}.mask`);
  const rows = Int32Array.from([...mask.keys()].filter((row) => mask[row]));
  const width = golden.config.out_dim as number;
  const index = tf.tensor1d(rows, "int32");
  const [logits, target] = ["student_full", "teacher_full_probs"].map((name) => {
    const whole = rowsOf(golden, `inputs.${at}.${name}`, width);
    const part = tf.gather(whole, index);
    whole.dispose();
    return part;
  }) as [tf.Tensor2D, tf.Tensor2D];
  const { loss, gradient } = lossOf(golden, logits, target, weightsOf(golden, at));
  check.tensor(`outputs.${at}.loss_full`, [loss], asLoss);
  const full = new Float32Array(mask.length * width);
  rows.forEach((row, i) => {
    full.set(gradient.subarray(i * width, (i + 1) * width), row * width);
  });
  check.tensor(`grads.${at}.student_full`, full, asStepGradient);
  tf.dispose([index, logits, target]);
}

function maskedLoss(golden: Golden, at: string, target: tf.Tensor2D, weights: Float32Array) {
  const padded = golden.tensor<tf.Tensor2D>(`inputs.${at}.student_masked`);
  const logits = tf.slice(padded, 0, target.shape[0]);
  const { loss, gradient } = lossOf(golden, logits, target, weights);
  const whole = new Float32Array(padded.size);
  whole.set(gradient);
  tf.dispose([padded, logits]);
  return { loss, gradient: whole };
}

function lossOf(
  golden: Golden,
  logits: tf.Tensor2D,
  target: tf.Tensor2D,
  weights: Float32Array,
): { readonly loss: number; readonly gradient: Float32Array } {
  const run = ibotTargets(target, weights, { crops: golden.config.images, factor: 1 });
  const { rows, gradient } = entropyOf(logits, run, golden.config.student_temp);
  return { loss: sumOf(rows), gradient };
}

/** 1 / masked patches of its image, for each masked patch. */
function weightsOf(golden: Golden, at: string): Float32Array {
  const [images, tokens] = golden.shape(`inputs.${at}.mask`) as [number, number];
  const mask = golden.u8(`inputs.${at}.mask`);
  const weights: number[] = [];
  for (let image = 0; image < images; image++) {
    const count = mask.subarray(image * tokens, (image + 1) * tokens).filter((on) => on).length;
    for (let i = 0; i < count; i++) weights.push(1 / count);
  }
  return Float32Array.from(weights);
}
