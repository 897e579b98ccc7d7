/** Rotary tables of DINOv3 in float32 and bfloat16, their use on queries, and their changes in training. */
import { type RopeDraw, type Rotation, ropePeriods, ropeTables, rotate } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { numberOf } from "../backbone.js";
import { ropeOf } from "../backbone-config.js";
import { asOutput, asProbability, type Check } from "../check.js";
import { ropeDraw } from "../draws.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

type Config = Record<string, unknown>;

export const rope: Kind = {
  name: "rotary positions",
  matches: (golden) =>
    golden.family === "dinov3" && golden.names("outputs.").some((name) => /\.periods$/.test(name)),
  run(golden, check) {
    for (const recorded of golden.names("outputs.").filter((name) => name.endsWith(".periods"))) {
      const name = recorded.slice("outputs.".length, -".periods".length);
      checkCase(golden, check, name, golden.config[name] as Config);
    }
  },
};

export const ropeAugment: Kind = {
  name: "rotary positions changed in training",
  matches: (golden) =>
    golden.family === "dinov3" &&
    golden.names("inputs.draw0.").length > 0 &&
    golden.has("outputs.draw0.cos"),
  run(golden, check) {
    for (const recorded of golden.names("outputs.").filter((name) => name.endsWith(".cos"))) {
      const name = recorded.slice("outputs.".length, -".cos".length);
      const draw = ropeDraw(golden, (part) => `inputs.${name}.${part}`);
      checkTables(check, `outputs.${name}`, "", golden.config, draw);
    }
  },
};

function checkCase(golden: Golden, check: Check, name: string, config: Config): void {
  checkTables(check, `outputs.${name}`, "", config);
  check.tensor(`outputs.${name}.periods`, ropePeriods(ropeOf(config), widthOf(config)), asOutput);
  if (golden.has(`outputs.${name}.periods.bf16`)) {
    const low = { ...config, dtype: "bf16" };
    checkTables(check, `outputs.${name}`, ".bf16", low);
    const periods = ropePeriods(ropeOf(low), widthOf(low));
    check.tensor(`outputs.${name}.periods.bf16`, periods, asProbability);
  }
  if (golden.has(`inputs.${name}.q`)) checkUse(golden, check, name, config);
}

function widthOf(config: Config): number {
  return numberOf(config, "embed_dim") / numberOf(config, "num_heads");
}

function gridOf(config: Config): { height: number; width: number } {
  return { height: numberOf(config, "H"), width: numberOf(config, "W") };
}

/** Official tables hold their angles twice, for both halves of a head. */
function checkTables(
  check: Check,
  prefix: string,
  suffix: string,
  config: Config,
  draw?: RopeDraw,
): void {
  const width = widthOf(config);
  const tables = ropeTables(ropeOf(config), width, gridOf(config), draw);
  for (const part of ["cos", "sin"] as const) {
    const half = tf.tensor2d(tables[part], [tables[part].length / (width / 2), width / 2]);
    const whole = tf.concat([half, half], 1);
    half.dispose();
    check.tensor(`${prefix}.${part}${suffix}`, whole, asProbability);
  }
}

/** q [B,heads,prefix + P,d]: rotated as the queries and as the keys of packed rows. */
function checkUse(golden: Golden, check: Check, name: string, config: Config): void {
  const shape = golden.shape(`inputs.${name}.q`) as [number, number, number, number];
  const [count, heads, length, width] = shape;
  const grid = gridOf(config);
  const spec = ropeOf(config);
  const tables = ropeTables(spec, width, grid);
  const table = (values: Float32Array) =>
    tf.tensor2d(values, [values.length / (width / 2), width / 2]);
  const rotation: Rotation = {
    cos: table(tables.cos),
    sin: table(tables.sin),
    prefix: length - grid.height * grid.width,
    dtype: spec.dtype,
  };
  const qkv = tf.tidy(() => {
    const q = tf.transpose(golden.tensor<tf.Tensor4D>(`inputs.${name}.q`), [0, 2, 1, 3]);
    const rows = tf.reshape(q, [count * length, heads * width]);
    return tf.concat([rows, rows, rows], 1) as tf.Tensor2D;
  });
  const before = qkv.dataSync().slice();
  const turned = rotate(qkv, rotation, { numHeads: heads, groups: [{ count, length }] });
  const part = (which: number) =>
    tf.tidy(() => {
      const rows = tf.slice(turned, [0, which * heads * width], [-1, heads * width]);
      const split = tf.reshape(rows, [count, length, heads, width]);
      return tf.transpose(split, [0, 2, 1, 3]);
    });
  check.tensor(`outputs.${name}.apply`, part(0), asOutput);
  check.close(`${name}: keys`, part(1), golden.f32(`outputs.${name}.apply`), asOutput);
  const values = tf.tidy(() => tf.transpose(part(2), [0, 2, 1, 3]));
  const unchanged = before.filter((_, i) => i % (3 * heads * width) >= 2 * heads * width);
  check.close(`${name}: values`, values, unchanged, () => 0);
  tf.dispose([turned, rotation.cos, rotation.sin]);
}
