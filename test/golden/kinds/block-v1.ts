/** One block of DINO in train mode, with recorded draws of stochastic depth by sample. */
import { blockBackward, blockForward, blockOf, drawSamples } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { accumulate, checkGradients, numberOf, parametersOf, type Sums } from "../backbone.js";
import { asGradient, asOutput, exactly } from "../check.js";
import type { Kind } from "../kind.js";

const prefix = "backbone.blocks.0";
const names = ["attn", "mlp"] as const;

export const blockV1: Kind = {
  name: "block with stochastic depth by sample",
  matches: (golden) => golden.family === "dinov1" && golden.has("inputs.u_attn"),
  run(golden, check) {
    const { config } = golden;
    const [count, length, width] = golden.shape("inputs.x") as [number, number, number];
    const groups = [{ count, length }];
    const rate = numberOf(config, "drop_path");
    const tensors = parametersOf(golden, "params.", `${prefix}.`);
    const options = {
      heads: numberOf(config, "heads"),
      // Alone, a block has PyTorch's default.
      normEps: numberOf({ norm_eps: 1e-5, ...config }, "norm_eps"),
      ffn: "mlp",
      maskKeyBias: false,
    } as const;
    const block = blockOf(options, tensors, prefix);
    const x = golden.tensor<tf.Tensor2D>("inputs.x", [count * length, width]);
    const { y, saved } = blockForward(block, x, groups, (branch) => {
      const drawn = drawSamples(groups, rate, () => golden.f32(`inputs.u_${names[branch]}`));
      if (drawn) {
        const scales = drawn.rowScale.dataSync().filter((_, row) => row % length === 0);
        const kept = `inputs.keep_${names[branch]}`;
        check.close(kept, scales.map(Math.sign), golden.u8(kept), exactly);
      }
      return drawn;
    });
    check.tensor("outputs.y", y, asOutput);
    const dy = golden.tensor<tf.Tensor2D>("inputs.cotangent", [count * length, width]);
    const { dx, grads } = blockBackward(block, dy, x, groups, saved);
    check.tensor("grads.inputs.x", dx, asGradient);
    const sums: Sums = new Map();
    accumulate(sums, grads);
    const tolerance = asGradient;
    checkGradients(golden, check, sums, { prefix: "grads.params.", ours: `${prefix}.`, tolerance });
    tf.dispose([x, ...Object.values(tensors)]);
  },
};
