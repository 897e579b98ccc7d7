/** Packed crops of two sizes and batch-subset stochastic depth, against recorded index sets. */
import {
  blockBackward,
  blockForward,
  blockOf,
  drawSubset,
  dropNothing,
  scaledAdd,
  subsetSize,
  type UnitTensors,
  type VitConfig,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { beforeEach, describe, expect, test } from "vitest";
import { accumulate, configOf, cropsOf, parametersOf, plainName } from "./support/backbone.js";
import { passOf } from "./support/backbone-pass.js";
import { asGradient, asOutput, expectClose, expectTensor } from "./support/close.js";
import { engines } from "./support/engines.js";
import { type Golden, readGolden } from "./support/safetensors.js";

describe.each(engines)("stochastic depth on $name", ({ use }) => {
  beforeEach(use);

  for (const file of ["block_stochastic_depth_ls", "block_stochastic_depth_nols"]) {
    test(`${file}: a block on a packed list and on one tensor matches the reference`, () => {
      const golden = readGolden(`dinov2/${file}`);
      const tensors = parametersOf(golden, "params.", "backbone.blocks.0.");
      const before = tf.memory().numTensors;
      checkBlock(golden, tensors, "eval_list", [0, 1]);
      checkBlock(golden, tensors, "train_list", [0, 1]);
      checkBlock(golden, tensors, "train_tensor", [0]);
      expect(tf.memory().numTensors).toBe(before);
      tf.dispose(Object.values(tensors));
    });
  }

  test("a backbone on masked global crops and local crops drops the recorded sequences", () => {
    const golden = readGolden("dinov2/vit_list_stochastic_depth");
    const config = configOf(golden.config);
    const tensors = parametersOf(golden, "params.", "backbone.");
    const groups = [cropsOf(golden, "inputs.x.0", "inputs.mask.0"), cropsOf(golden, "inputs.x.1")];
    const pass = passOf({ config, tensors }, groups, (block, branch, sequences) =>
      drawSubset(sequences, golden.config.drop_path as number, (group) =>
        golden.i32(`inputs.indices.block${block}.${branch === 0 ? "attn" : "ffn"}.${group}`),
      ),
    );
    const prenorm = pass.rows.at(-1)?.dataSync() ?? [];
    const recorded = [...golden.f32("outputs.x_prenorm.0"), ...golden.f32("outputs.x_prenorm.1")];
    expectClose("prenorm", prenorm, recorded, asOutput);
    checkNormed(golden, config, pass.h);
    pass.h.dispose();
    const sums = new Map<string, Float32Array>();
    pass.backward(cotangents(golden, config), sums);
    for (const name of golden.names("grads.params.")) {
      const ours = `backbone.${plainName(name.slice("grads.params.".length))}`;
      expectClose(`gradient of ${ours}`, sums.get(ours) ?? [], golden.f32(name), asGradient);
    }
    tf.dispose(Object.values(tensors));
  });

  test("a scaled residual lands on the recorded rows", () => {
    const golden = readGolden("dinov2/drop_add_residual");
    const [sequences, length, width] = golden.shape("inputs.x") as [number, number, number];
    const { keep, factor } = golden.config as { keep: number; factor: number };
    for (const [variant, gamma] of [
      ["y", undefined],
      ["z", golden.tensor<tf.Tensor1D>("inputs.gamma")],
    ] as const) {
      const subset = drawSubset(
        [{ count: sequences, length }],
        golden.config.ratio as number,
        (_group, _count, kept) => {
          expect(kept).toBe(keep);
          return golden.i32(`inputs.indices_${variant}`);
        },
      );
      const y = tf.tidy(() => {
        const x = golden.tensor<tf.Tensor2D>("inputs.x", [sequences * length, width]);
        const rows = subset?.rows as tf.Tensor1D;
        expect(subset?.rowScale.dataSync()[0]).toBeCloseTo(factor, 6);
        const f = tf.mul(tf.tanh(tf.gather(x, rows)), golden.tensor("inputs.f_scale"));
        return scaledAdd(x, f as tf.Tensor2D, { rows, rowScale: subset?.rowScale, gamma });
      });
      expectTensor(variant, y, golden.f32(`outputs.${variant}`), asOutput);
    }
  });

  test("the subset sizes are the reference's", () => {
    const table = readGolden("dinov2/drop_add_residual").config.keep_table as Record<
      string,
      number
    >;
    for (const [key, keep] of Object.entries(table)) {
      const [count, rate] = key.split(",").map(Number) as [number, number];
      expect(subsetSize(count, rate), key).toBe(keep);
    }
  });
});

/** One block on the listed entries: outputs, input gradients, parameter gradients. */
function checkBlock(
  golden: Golden,
  tensors: UnitTensors,
  kind: "eval_list" | "train_list" | "train_tensor",
  entries: readonly number[],
): void {
  const config = {
    width: golden.config.dim as number,
    heads: golden.config.heads as number,
    ffn: "mlp",
    normEps: golden.config.norm_eps as number,
  } as VitConfig;
  const shapes = entries.map((entry) => golden.shape(`inputs.x.${entry}`));
  const groups = shapes.map(([count = 0, length = 0]) => ({ count, length }));
  const packed = (name: string): tf.Tensor2D =>
    tf.tidy(() => tf.concat(entries.map((e) => rowsOf(golden, `${name}.${e}`))));
  const block = blockOf(config, tensors, "backbone.blocks.0");
  const x = packed("inputs.x");
  const { y, saved } = blockForward(block, x, groups, (branch) =>
    kind === "eval_list"
      ? dropNothing(branch)
      : drawSubset(groups, golden.config.drop as number, (group) =>
          golden.i32(`inputs.${kind}.indices.${branch * entries.length + group}`),
        ),
  );
  const all = (prefix: string) => entries.flatMap((e) => [...golden.f32(`${prefix}.${e}`)]);
  expectTensor(`${kind} y`, y, all(`outputs.${kind}.y`), asOutput);
  const sums = new Map<string, Float32Array>();
  const { dx, grads } = blockBackward(block, packed("inputs.cotangent"), x, groups, saved);
  accumulate(sums, grads);
  expectTensor(`${kind} dx`, dx, all(`grads.${kind}.inputs.x`), asGradient);
  x.dispose();
  for (const name of Object.keys(tensors)) {
    const official = name.slice("backbone.blocks.0.".length);
    const expected = golden.f32(`grads.${kind}.${official}`);
    expectClose(`${kind} gradient of ${official}`, sums.get(name) ?? [], expected, asGradient);
  }
}

function checkNormed(golden: Golden, config: VitConfig, h: tf.Tensor2D): void {
  let start = 0;
  for (const [entry, count] of (golden.config.batch as number[]).entries()) {
    const patches = golden.shape(`outputs.x_norm_patchtokens.${entry}`)[1] as number;
    const length = 1 + config.registers + patches;
    const tokens = tf.tidy(() =>
      tf.reshape(tf.slice(h, [start, 0], [count * length, -1]), [count, length, config.width]),
    );
    for (const [name, from, size] of [
      ["x_norm_clstoken", 0, 1],
      ["x_norm_regtokens", 1, config.registers],
      ["x_norm_patchtokens", 1 + config.registers, patches],
    ] as const) {
      const part = tf.slice(tokens, [0, from, 0], [-1, size, -1]);
      expectTensor(`${name} ${entry}`, part, golden.f32(`outputs.${name}.${entry}`), asOutput);
    }
    tokens.dispose();
    start += count * length;
  }
}

function cotangents(golden: Golden, config: VitConfig): tf.Tensor2D {
  return tf.tidy(() => {
    const perGroup = (golden.config.batch as number[]).map((count, entry) => {
      const cls = golden.tensor<tf.Tensor3D>(`inputs.cotangent_cls.${entry}`, [
        count,
        1,
        config.width,
      ]);
      const registers = tf.zeros<tf.Rank.R3>([count, config.registers, config.width]);
      const patches = golden.tensor<tf.Tensor3D>(`inputs.cotangent_patch.${entry}`);
      return tf.reshape(tf.concat([cls, registers, patches], 1), [-1, config.width]);
    });
    return tf.concat(perGroup) as tf.Tensor2D;
  });
}

/** [n,N,D] as rows [n * N, D] */
function rowsOf(golden: Golden, name: string): tf.Tensor2D {
  const [count, length, width] = golden.shape(name) as [number, number, number];
  return golden.tensor(name, [count * length, width]);
}
