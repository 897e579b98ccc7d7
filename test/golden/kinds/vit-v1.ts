/** DINO's VisionTransformer in evaluation, on several input sizes. */
import { positionEncoding } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { checkGradients, cropsOf, parametersOf, type Sums } from "../backbone.js";
import { configOfV1 } from "../backbone-config.js";
import { type GroupTokens, type Model, type Pass, passOf } from "../backbone-pass.js";
import { asGradient, asLoss, asOutput, type Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";
import { checkIntermediate, dot } from "../tokens.js";

export const vitV1: Kind = {
  name: "DINO backbone",
  matches: (golden) =>
    golden.family === "dinov1" &&
    golden.has("params.patch_embed.proj.weight") &&
    golden.names("outputs.cls.").length > 0,
  run(golden, check) {
    const model = {
      config: configOfV1(golden),
      tensors: parametersOf(golden, "params.", "backbone."),
    };
    const sums: Sums = new Map();
    let objective = 0;
    for (const name of golden.names("inputs.x.")) {
      objective += checkSize(golden, check, model, name.slice("inputs.x.".length), sums);
    }
    check.tensor("outputs.objective", [objective], asLoss);
    const names = { prefix: "grads.params.", ours: "backbone." };
    checkGradients(golden, check, sums, { ...names, tolerance: asGradient });
    tf.dispose(Object.values(model.tensors));
  },
};

/** Returns the size's part of the objective, and adds its gradients to `sums`. */
function checkSize(golden: Golden, check: Check, model: Model, size: string, sums: Sums): number {
  const { config, tensors } = model;
  const crops = cropsOf(golden, `inputs.x.${size}`);
  const positions = tf.tidy(() => {
    const grid = {
      height: crops.height / config.patchSize,
      width: crops.width / config.patchSize,
    };
    const { cls, patch } = positionEncoding(config, tensors, grid);
    return tf.concat([cls, patch]);
  });
  check.tensor(`outputs.pos_encoding.${size}`, positions, asOutput);
  const pass = passOf(model, [crops]);
  const [embedded] = pass.rows as [tf.Tensor2D];
  check.tensor(`outputs.prepare_tokens.${size}`, embedded.dataSync(), asOutput);
  check.tensor(`outputs.last_selfattention.${size}`, pass.attention(), asOutput);
  checkIntermediate(golden, check, model, size, pass.rows.slice(1));
  const [tokens] = pass.tokens as [GroupTokens];
  const cls = clsOf(tokens);
  check.tensor(`outputs.cls.${size}`, cls, asOutput);
  const part = dot(cls, golden.f32(`inputs.cotangent.${size}`));
  check.tensor(`grads.inputs.x.${size}`, pixels(golden, pass, size, sums), asGradient);
  return part;
}

/** Gradients of sum(cls * cotangent). */
function pixels(golden: Golden, pass: Pass, size: string, sums: Sums): tf.Tensor {
  const [{ prefix, patches }] = pass.tokens as [GroupTokens];
  const cotangent = {
    prefix: golden.tensor<tf.Tensor3D>(`inputs.cotangent.${size}`, prefix.shape),
    patches: tf.zerosLike(patches),
  };
  tf.dispose([prefix, patches]);
  const [dpixels] = pass.backward([cotangent], sums) as [tf.Tensor4D];
  return dpixels;
}

function clsOf({ prefix }: GroupTokens): Float32Array {
  return prefix.dataSync() as Float32Array;
}
