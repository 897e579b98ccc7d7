/** The projection head against the reference: three depths, trained weight-norm magnitude. */
import {
  bottleneck,
  bottleneckBackward,
  headOf,
  headScores,
  linearBackward,
  type UnitTensors,
  weightNorm,
  weightNormBackward,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { beforeEach, describe, expect, test } from "vitest";
import { parametersOf } from "../golden/backbone.js";
import { asProbability, asStepGradient, expectTensor } from "./support/close.js";
import { engines } from "./support/engines.js";
import { readGolden } from "./support/safetensors.js";

describe.each(engines)("head on $name", ({ use }) => {
  beforeEach(use);

  for (const variant of ["nl3", "nl2_nobias", "nl1"]) {
    test(`${variant}: scores and gradients match the reference`, () => {
      const golden = readGolden("dinov2/dino_head");
      const tensors = parametersOf(golden, `params.${variant}.`, "dino_head.");
      const before = tf.memory().numTensors;
      const head = headOf(tensors, "dino_head");
      const x = golden.tensor<tf.Tensor2D>("inputs.x");
      const y = headScores(head, x);
      expectTensor("scores", y, golden.f32(`outputs.${variant}.y`), asProbability);

      const grads: Record<string, tf.Tensor> = {};
      const saved = bottleneck(head, x);
      const { w, direction } = weightNorm(head.g, head.v);
      const dy = golden.tensor<tf.Tensor2D>("inputs.cotangent");
      const last = linearBackward(dy, saved.unit.y, w, { needDx: true, hasBias: false });
      const { dg, dv } = weightNormBackward(last.dw, head.g, direction);
      grads["dino_head.last_layer.weight_g"] = dg;
      grads["dino_head.last_layer.weight_v"] = dv;
      const dx = bottleneckBackward(head, last.dx as tf.Tensor2D, saved, grads);
      expectTensor("dx", dx, golden.f32(`grads.${variant}.inputs.x`), asStepGradient);
      expectGradients(variant, tensors, grads);
      tf.dispose([x, dy, w, direction.y, direction.norm, last.dw]);
      expect(tf.memory().numTensors).toBe(before);
      tf.dispose(Object.values(tensors));
    });
  }
});

function expectGradients(variant: string, tensors: UnitTensors, grads: UnitTensors): void {
  const golden = readGolden("dinov2/dino_head");
  for (const name of Object.keys(tensors)) {
    const expected = golden.f32(`grads.${variant}.${name.slice("dino_head.".length)}`);
    expectTensor(`gradient of ${name}`, grads[name] as tf.Tensor, expected, asStepGradient);
  }
}
