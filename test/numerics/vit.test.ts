/** The backbone against the DINOv2 reference: forward, intermediate layers, gradients; all variants, all sizes. */
import { type CropGroup, output, positionEncoding, type VitConfig } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { beforeEach, describe, expect, test } from "vitest";
import { configOf, cropsOf, parametersOf, plainName } from "./support/backbone.js";
import { type Model, passOf } from "./support/backbone-pass.js";
import { asGradient, asLoss, asOutput, expectClose, expectTensor } from "./support/close.js";
import { engines } from "./support/engines.js";
import { type Golden, readGolden } from "./support/safetensors.js";

const variants = [
  "vit_mlp_reg0",
  "vit_mlp_reg0_chunks2",
  "vit_mlp_reg4_ls_antialias",
  "vit_swiglu_reg0_nobias",
  "vit_swiglu_reg4_size",
  "vit_headdim64",
];

describe.each(engines)("backbone on $name", ({ use }) => {
  beforeEach(use);

  for (const variant of variants) {
    test(`${variant} matches the reference, forward and backward`, () => {
      const golden = readGolden(`dinov2/${variant}`);
      const model = {
        config: configOf(golden.config),
        tensors: parametersOf(golden, "params.", "backbone."),
      };
      const before = tf.memory().numTensors;
      const sums = new Map<string, Float32Array>();
      let objective = 0;
      for (const size of golden.config.sizes as string[]) {
        checkPositions(golden, model, size);
        for (const kind of ["masked", "plain"] as const) {
          objective += checkForwardBackward(golden, model, size, kind, sums);
        }
      }
      expectClose("objective", [objective], golden.f32("outputs.objective"), asLoss);
      checkGradients(golden, sums);
      expect(tf.memory().numTensors).toBe(before);
      tf.dispose(Object.values(model.tensors));
    });
  }
});

function checkPositions(golden: Golden, { config, tensors }: Model, size: string): void {
  const [height, width] = size.split("x").map((side) => Number(side) / config.patchSize) as [
    number,
    number,
  ];
  const all = tf.tidy(() => {
    const { cls, patch } = positionEncoding(config, tensors, { height, width });
    return tf.concat([cls, patch]);
  });
  expectTensor(`positions ${size}`, all, golden.f32(`outputs.pos_encoding.${size}`), asOutput);
}

/** Checks every output of one forward, adds its gradients to `sums`, and returns its part of the objective. */
function checkForwardBackward(
  golden: Golden,
  model: Model,
  size: string,
  kind: "masked" | "plain",
  sums: Map<string, Float32Array>,
): number {
  const { config } = model;
  const mask = kind === "masked" ? `inputs.mask.${size}` : undefined;
  const crops = cropsOf(golden, `inputs.x.${size}`, mask);
  const pass = passOf(model, [crops]);
  const [embedded, ...blocks] = pass.rows.map((x) => x.dataSync());
  if (kind === "plain") {
    const tokens = golden.f32(`outputs.prepare_tokens.${size}`);
    expectClose(`tokens ${size}`, embedded ?? [], tokens, asOutput);
    checkIntermediate(golden, model, size, pass.rows.slice(1));
  }
  const prenorm = golden.f32(`outputs.x_prenorm.${kind}.${size}`);
  expectClose(`prenorm ${kind} ${size}`, blocks.at(-1) ?? [], prenorm, asOutput);
  const objective = checkTokens(golden, pass.h, crops, size, kind, config);
  pass.h.dispose();
  pass.backward(cotangent(golden, size, config), sums);
  return objective;
}

/** Checks cls, register and patch tokens after the norm; returns the sum of products with the cotangents. */
function checkTokens(
  golden: Golden,
  h: tf.Tensor2D,
  group: CropGroup,
  size: string,
  kind: string,
  config: VitConfig,
): number {
  const skipped = 1 + config.registers;
  const tokens = tf.reshape(h, [group.count, -1, config.width]) as tf.Tensor3D;
  const part = (start: number, length: number): Float32Array =>
    tf.tidy(() => tf.slice(tokens, [0, start, 0], [-1, length, -1]).dataSync()) as Float32Array;
  const cls = part(0, 1);
  const patches = part(skipped, -1);
  const expected = (name: string) => golden.f32(`outputs.${name}.${kind}.${size}`);
  expectClose(`cls ${kind} ${size}`, cls, expected("x_norm_clstoken"), asOutput);
  expectClose(`patches ${kind} ${size}`, patches, expected("x_norm_patchtokens"), asOutput);
  if (config.registers > 0) {
    const registers = part(1, config.registers);
    expectClose(`registers ${kind} ${size}`, registers, expected("x_norm_regtokens"), asOutput);
  }
  tokens.dispose();
  const dot = (a: Float32Array, b: Float32Array): number =>
    a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
  return (
    dot(cls, golden.f32(`inputs.cotangent_cls.${size}`)) +
    dot(patches, golden.f32(`inputs.cotangent_patch.${size}`))
  );
}

/** Gradient of the objective with respect to all normed tokens; registers do not enter it. */
function cotangent(golden: Golden, size: string, config: VitConfig): tf.Tensor2D {
  return tf.tidy(() => {
    const patches = golden.tensor<tf.Tensor3D>(`inputs.cotangent_patch.${size}`);
    const count = patches.shape[0];
    const cls = golden.tensor<tf.Tensor3D>(`inputs.cotangent_cls.${size}`, [
      count,
      1,
      config.width,
    ]);
    const registers = tf.zeros<tf.Rank.R3>([count, config.registers, config.width]);
    const parts = config.registers > 0 ? [cls, registers, patches] : [cls, patches];
    return tf.reshape(tf.concat(parts, 1), [-1, config.width]) as tf.Tensor2D;
  });
}

/** get_intermediate_layers: the last n blocks, normed and as maps; and single blocks, raw. */
function checkIntermediate(
  golden: Golden,
  { config, tensors }: Model,
  size: string,
  outputs: readonly tf.Tensor2D[],
): void {
  for (const [name, o] of Object.entries(golden.config.intermediate) as [string, Wanted][]) {
    const indices = Array.isArray(o.n)
      ? o.n
      : Array.from({ length: o.n }, (_, i) => config.depth - (o.n as number) + i);
    for (const [at, index] of indices.entries()) {
      const expected = (part: string) =>
        golden.f32(`outputs.intermediate.${name}.${at}.${part}.${size}`);
      const { cls, patches } = layerTokens(golden, { config, tensors }, size, outputs[index], o);
      expectTensor(`${name} ${at} cls ${size}`, cls, expected("cls"), asOutput);
      expectTensor(`${name} ${at} patch ${size}`, patches, expected("patch"), asOutput);
    }
  }
}

interface Wanted {
  readonly n: number | number[];
  readonly norm: boolean;
  readonly reshape: boolean;
}

function layerTokens(
  golden: Golden,
  { config, tensors }: Model,
  size: string,
  x: tf.Tensor2D | undefined,
  o: Wanted,
): { cls: tf.Tensor; patches: tf.Tensor } {
  if (!x) throw new RangeError("no such block");
  const skipped = 1 + config.registers;
  return tf.tidy(() => {
    const rows = Array.from({ length: x.shape[0] }, (_, i) => i);
    const h = o.norm ? output(config, tensors, x, rows).h : x;
    const count = golden.shape(`inputs.x.${size}`)[0] as number;
    const tokens = tf.reshape(h, [count, -1, config.width]);
    const patches = tf.slice(tokens, [0, skipped, 0], [-1, -1, -1]);
    return {
      cls: tf.slice(tokens, [0, 0, 0], [-1, 1, -1]),
      patches: o.reshape ? tf.transpose(patches, [0, 2, 1]) : patches,
    };
  });
}

function checkGradients(golden: Golden, sums: Map<string, Float32Array>): void {
  const names = golden.names("grads.params.");
  expect(names.length).toBeGreaterThan(0);
  for (const name of names) {
    const ours = `backbone.${plainName(name.slice("grads.params.".length))}`;
    const actual = sums.get(ours) ?? new Float32Array(0);
    expectClose(`gradient of ${ours}`, actual, golden.f32(name), asGradient);
  }
}
