/** The backbones of DINOv2 and DINOv3: evaluation on several sizes, with masks and without; training on a list of crops (v3). */
import { positionEncoding } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { checkGradients, cropsOf, parametersOf, type Sums } from "../backbone.js";
import { configOfV2, configOfV3 } from "../backbone-config.js";
import { type GroupTokens, type Model, type Pass, passOf } from "../backbone-pass.js";
import { asGradient, asLoss, asOutput, type Check, type Tolerance } from "../check.js";
import { recordedDraws } from "../draws.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";
import { along, checkIntermediate, checkTokens, cotangentOf } from "../tokens.js";

/**
 * The README's row for rotation in bf16, absolute or relative. A query or key within float32's noise of the middle between two
 * bfloat16 values may be rounded the other way, and then changes outputs by this much (all others agree to 1e-6). Rotation in
 * float32 would be off by 10 times as much: the files' `difference_if_rope_runs_in_float32`.
 */
const asBf16Output: Tolerance = (largest) => Math.max(2e-3, 1e-3 * largest);
const asBf16Gradient: Tolerance = (largest) => Math.max(2e-2, 1e-3 * largest);

interface Run {
  readonly golden: Golden;
  readonly check: Check;
  readonly model: Model;
  readonly output: Tolerance;
  readonly gradient: Tolerance;
}

export const vit: Kind = {
  name: "DINOv2 and DINOv3 backbone",
  matches: (golden) =>
    (golden.family === "dinov2" || golden.family === "dinov3") &&
    golden.has("params.patch_embed.proj.weight") &&
    golden.names("outputs.x_prenorm.plain.").length > 0,
  run(golden, check) {
    const config = golden.family === "dinov2" ? configOfV2(golden) : configOfV3(golden);
    const tensors = parametersOf(golden, "params.", "backbone.");
    const bf16 = config.rope?.dtype === "bf16";
    const run: Run = {
      golden,
      check,
      model: { config, tensors },
      output: bf16 ? asBf16Output : asOutput,
      gradient: bf16 ? asBf16Gradient : asGradient,
    };
    checkKeyMask(run);
    const sums: Sums = new Map();
    let objective = 0;
    const sizes = golden.names("inputs.x.").map((name) => name.slice("inputs.x.".length));
    for (const size of sizes) objective += checkSize(run, size, sums);
    check.tensor("outputs.objective", [objective], bf16 ? run.output : asLoss);
    gradients(run, "grads.params.", sums);
    const first = (golden.config.sizes as string[])[0];
    if (first && golden.names("outputs.list_train.").length > 0) checkTraining(run, first);
    tf.dispose(Object.values(tensors));
  },
};

function gradients({ golden, check, gradient: tolerance }: Run, prefix: string, sums: Sums): void {
  checkGradients(golden, check, sums, { prefix, ours: "backbone.", tolerance });
}

/** The mask of the key biases is part of the official state: ones, and zeros in the middle third. */
function checkKeyMask({ golden, check, model: { config } }: Run): void {
  const masks = golden.names("buffers.").filter((name) => name.endsWith("attn.qkv.bias_mask"));
  check.equal("masked key biases", masks.length > 0, config.maskKeyBias);
  for (const name of masks) {
    const mask = [...golden.f32(name)];
    const ours = mask.map((_, i) => (Math.floor((3 * i) / mask.length) === 1 ? 0 : 1));
    check.equal(name, ours, mask);
  }
}

/** Adds the gradients of a size to `sums`, and returns its part of the objective. */
function checkSize(run: Run, size: string, sums: Sums): number {
  const { golden, check } = run;
  checkPositions(run, size);
  const dpixels: tf.Tensor[] = [];
  let objective = 0;
  for (const kind of ["masked", "plain"] as const) {
    const mask = kind === "masked" ? `inputs.mask.${size}` : undefined;
    const pass = passOf(run.model, [cropsOf(golden, `inputs.x.${size}`, mask)]);
    const prenorm = (pass.rows.at(-1) as tf.Tensor2D).dataSync();
    check.tensor(`outputs.x_prenorm.${kind}.${size}`, prenorm, run.output);
    if (kind === "plain") checkPlain(run, size, pass);
    const [tokens] = pass.tokens as [GroupTokens];
    checkTokens(golden, check, tokens, (part) => `outputs.${part}.${kind}.${size}`, run.output);
    const cotangent = cotangentOf(golden, size, tokens);
    objective += along(tokens, cotangent);
    dpixels.push(...pass.backward([cotangent], sums));
    tf.dispose([tokens.prefix, tokens.patches]);
  }
  const sum = tf.addN(dpixels);
  tf.dispose(dpixels);
  check.tensor(`grads.inputs.x.${size}`, sum, run.gradient);
  return objective;
}

/** What is recorded without masks alone. */
function checkPlain({ golden, check, model, output }: Run, size: string, pass: Pass): void {
  const embedded = `outputs.prepare_tokens.${size}`;
  if (golden.has(embedded)) check.tensor(embedded, (pass.rows[0] as tf.Tensor).dataSync(), output);
  checkIntermediate(golden, check, model, size, pass.rows.slice(1), output);
}

function checkPositions({ golden, check, model }: Run, size: string): void {
  const name = `outputs.pos_encoding.${size}`;
  if (!golden.has(name)) return;
  const { config, tensors } = model;
  const [height = 0, width = 0] = size.split("x").map((side) => Number(side) / config.patchSize);
  const all = tf.tidy(() => {
    const { cls, patch } = positionEncoding(config, tensors, { height, width });
    return tf.concat([cls, patch]);
  });
  check.tensor(name, all, asOutput);
}

/** Train mode on [first size with its mask, local crops without]. */
function checkTraining(run: Run, first: string): void {
  const { golden, check, model, output } = run;
  const groups = [
    cropsOf(golden, `inputs.x.${first}`, `inputs.mask.${first}`),
    cropsOf(golden, "inputs.local"),
  ];
  const pass = passOf(model, groups, recordedDraws(golden));
  const sums: Sums = new Map();
  checkList(golden, check, pass, { prefix: "outputs.list_train.", tolerance: output });
  const cotangents = [first, "local"].map((suffix, g) =>
    cotangentOf(golden, suffix, pass.tokens[g] as GroupTokens),
  );
  tf.dispose(pass.backward(cotangents, sums));
  for (const { prefix, patches } of pass.tokens) tf.dispose([prefix, patches]);
  gradients(run, "grads.list_train.", sums);
}

/** Tokens and rows before the norm of every group: `<prefix><what>.<group>`. */
export function checkList(
  golden: Golden,
  check: Check,
  pass: Pass,
  { prefix, tolerance }: { prefix: string; tolerance: Tolerance },
): void {
  const packed = (pass.rows.at(-1) as tf.Tensor2D).dataSync() as Float32Array;
  let start = 0;
  for (const [group, tokens] of pass.tokens.entries()) {
    const size = tokens.prefix.size + tokens.patches.size;
    check.tensor(`${prefix}x_prenorm.${group}`, packed.subarray(start, start + size), tolerance);
    start += size;
    checkTokens(golden, check, tokens, (part) => `${prefix}${part}.${group}`, tolerance);
  }
}
