/** DINOv2's residual on a subset of the sequences, alone: with the residual tanh(x) f, plain (y) and with LayerScale (z). */
import { drawSubset, scaledAdd, subsetSize } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { numberOf } from "../backbone.js";
import { asOutput, type Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

export const dropAddResidual: Kind = {
  name: "scaled residual on a subset",
  matches: (golden) => golden.family === "dinov2" && golden.has("inputs.indices_y"),
  run(golden, check) {
    checkVariant(golden, check, "y");
    checkVariant(golden, check, "z");
    const table: Record<string, number> = golden.config.keep_table ?? {};
    for (const [key, keep] of Object.entries(table)) {
      const [count = 0, rate = 0] = key.split(",").map(Number);
      check.equal(`sequences kept of ${key}`, subsetSize(count, rate), keep);
    }
  },
};

function checkVariant(golden: Golden, check: Check, variant: "y" | "z"): void {
  const [sequences, length, width] = golden.shape("inputs.x") as [number, number, number];
  const { config } = golden;
  const y = tf.tidy(() => {
    const groups = [{ count: sequences, length }];
    const subset = drawSubset(groups, numberOf(config, "ratio"), (_group, _count, keep) => {
      check.equal(`${variant}: sequences kept`, keep, config.keep);
      return golden.i32(`inputs.indices_${variant}`);
    });
    if (!subset?.rows) throw new RangeError("expected a ratio above 0");
    const scale = subset.rowScale.dataSync().subarray(0, 1);
    check.close(`${variant}: factor`, scale, [config.factor], () => 1e-6);
    const x = golden.tensor<tf.Tensor2D>("inputs.x", [sequences * length, width]);
    const f = tf.mul(tf.tanh(tf.gather(x, subset.rows)), golden.tensor("inputs.f_scale"));
    const gamma = variant === "z" ? golden.tensor<tf.Tensor1D>("inputs.gamma") : undefined;
    const { rows, rowScale } = subset;
    return scaledAdd(x, f as tf.Tensor2D, { rows, rowScale, gamma });
  });
  check.tensor(`outputs.${variant}`, y, asOutput);
}
