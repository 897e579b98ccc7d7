/** A backbone of DINOv2 in train mode on [global crops with masks, local crops], with recorded index sets. */
import { parseRunSpec } from "@paddock/contract";
import { dropPathRates } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { checkGradients, cropsOf, parametersOf, type Sums } from "../backbone.js";
import { configOfV2, configOfV3 } from "../backbone-config.js";
import { type GroupTokens, passOf } from "../backbone-pass.js";
import { asDouble, asGradient, asOutput } from "../check.js";
import { recordedDraws } from "../draws.js";
import type { Kind } from "../kind.js";
import { cotangentOf } from "../tokens.js";
import { checkList } from "./vit.js";

export const vitList: Kind = {
  name: "backbone on a list of crops",
  matches: (golden) =>
    golden.has("params.patch_embed.proj.weight") && golden.has("outputs.x_prenorm.0"),
  run(golden, check) {
    const config = golden.family === "dinov2" ? configOfV2(golden) : configOfV3(golden);
    const tensors = parametersOf(golden, "params.", "backbone.");
    if (golden.config.rates_per_block) {
      const { drop_path: dropPathRate, uniform: dropPathUniform } = golden.config;
      const { width, depth, heads } = config;
      const model = { width, depth, heads, dropPathRate, dropPathUniform };
      const spec = parseRunSpec({ steps: 1, batchPerRank: 2, data: { path: "none" }, model });
      const rates = dropPathRates(spec.model);
      check.close("rates of the blocks", rates, golden.config.rates_per_block, asDouble);
    }
    const groups = golden
      .names("inputs.x.")
      .map((name) => Number(name.slice("inputs.x.".length)))
      .sort((a, b) => a - b)
      .map((g) => {
        const mask = `inputs.mask.${g}`;
        return cropsOf(golden, `inputs.x.${g}`, golden.has(mask) ? mask : undefined);
      });
    const pass = passOf({ config, tensors }, groups, recordedDraws(golden));
    checkList(golden, check, pass, { prefix: "outputs.", tolerance: asOutput });
    const sums: Sums = new Map();
    const cotangents = pass.tokens.map((tokens, g) => cotangentOf(golden, String(g), tokens));
    const dpixels = pass.backward(cotangents, sums);
    for (const [g, gradient] of dpixels.entries()) {
      const name = `grads.inputs.x.${g}`;
      if (golden.has(name)) check.tensor(name, gradient.dataSync(), asGradient);
    }
    tf.dispose([...dpixels, ...Object.values(tensors)]);
    for (const { prefix, patches } of pass.tokens as GroupTokens[]) tf.dispose([prefix, patches]);
    const names = { prefix: "grads.params.", ours: "backbone." };
    checkGradients(golden, check, sums, { ...names, tolerance: asGradient });
  },
};
