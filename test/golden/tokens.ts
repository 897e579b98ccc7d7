/** What a backbone gives: tokens after the final norm, and intermediate layers. */
import { type OutputRows, output } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import type { GroupTokens, Model } from "./backbone-pass.js";
import { asOutput, type Check, type Tolerance } from "./check.js";
import type { Golden } from "./file.js";

/** get_intermediate_layers: which blocks, whether normed. */
interface Wanted {
  readonly indices: readonly number[];
  readonly norm: boolean;
}

/**
 * Compares every recorded `outputs.intermediate[_.]<name>.<at>[.<part>].<size>`. Parts are cls, extra (registers) and patch, the
 * latter also as maps [n,D,h,w]; DINO records all tokens together.
 */
export function checkIntermediate(
  golden: Golden,
  check: Check,
  model: Model,
  size: string,
  blocks: readonly tf.Tensor2D[],
  tolerance: Tolerance = asOutput,
): void {
  const pattern = /^outputs\.intermediate[._](\w+)\.(\d+)(?:\.(\w+))?\.(\d+x\d+)$/;
  for (const recorded of golden.names("outputs.intermediate")) {
    const [, name = "", at, part = "all", of] = pattern.exec(recorded) ?? [];
    if (!name) throw new RangeError(`${recorded}: expected a layer, a part and a size`);
    if (of !== size) continue;
    const { indices, norm } = wantedOf(golden, name, model.config.depth);
    const x = blocks[indices[Number(at)] ?? -1];
    if (!x) throw new RangeError(`${recorded}: no such block`);
    const count = golden.shape(recorded)[0] as number;
    const asMaps = golden.shape(recorded).length === 4;
    check.tensor(recorded, layerPart(model, x, count, { part, norm, asMaps }), tolerance);
  }
}

/** By the config, or by name: n<k> the last k blocks after the norm; list the first and the last without. */
function wantedOf(golden: Golden, name: string, depth: number): Wanted {
  const given = golden.config.intermediate?.[name] as
    | { n: number | number[]; norm: boolean }
    | undefined;
  const last = (n: number) => {
    const taken = Math.min(n, depth);
    return Array.from({ length: taken }, (_, i) => depth - taken + i);
  };
  if (given) {
    return { indices: Array.isArray(given.n) ? given.n : last(given.n), norm: given.norm };
  }
  if (name === "list") return { indices: [...new Set([0, depth - 1])], norm: false };
  const n = /^n(\d+)$/.exec(name)?.[1];
  if (!n) throw new RangeError(`intermediate layers ${name}: expected n<k> or list`);
  return { indices: last(Number(n)), norm: true };
}

function layerPart(
  { config, tensors }: Model,
  x: tf.Tensor2D,
  count: number,
  { part, norm, asMaps }: { part: string; norm: boolean; asMaps: boolean },
): tf.Tensor {
  const skipped = 1 + config.registers;
  const length = x.shape[0] / count;
  const ranges: Record<string, [number, number]> = {
    all: [0, length],
    cls: [0, 1],
    extra: [1, skipped],
    patch: [skipped, length],
  };
  const range = ranges[part];
  if (!range) throw new RangeError(`expected cls, extra or patch, received ${part}`);
  const rows = Array.from({ length: count * (range[1] - range[0]) }, (_, i) => {
    const each = range[1] - range[0];
    return Math.floor(i / each) * length + range[0] + (i % each);
  });
  return tf.tidy(() => {
    const kind = part === "patch" || part === "all" ? "patch" : "cls";
    const wanted: OutputRows[] = [{ kind, rows }];
    const h = norm
      ? output(config, tensors, x, wanted).h
      : tf.gather(x, tf.tensor1d(rows, "int32"));
    const tokens = tf.reshape(h, [count, -1, config.width]);
    return asMaps ? tf.transpose(tokens, [0, 2, 1]) : tokens;
  });
}

/** Compares cls, registers (`x_norm_regtokens` or `x_storage_tokens`) and patches. */
export function checkTokens(
  golden: Golden,
  check: Check,
  { prefix, patches }: GroupTokens,
  nameOf: (part: string) => string,
  tolerance: Tolerance,
): void {
  const registers = golden.has(nameOf("x_storage_tokens"))
    ? "x_storage_tokens"
    : "x_norm_regtokens";
  const parts = tf.tidy(() => ({
    cls: tf.slice(prefix, [0, 0, 0], [-1, 1, -1]),
    registers: tf.slice(prefix, [0, 1, 0]),
  }));
  check.tensor(nameOf("x_norm_clstoken"), parts.cls, tolerance);
  check.tensor(nameOf("x_norm_patchtokens"), patches.dataSync(), tolerance);
  if (parts.registers.size > 0) check.tensor(nameOf(registers), parts.registers, tolerance);
  else parts.registers.dispose();
}

/** The recorded cotangents of cls and patches, in the shape of the tokens; registers have none. */
export function cotangentOf(golden: Golden, suffix: string, like: GroupTokens): GroupTokens {
  return tf.tidy(() => {
    const [count, skipped, width] = like.prefix.shape;
    const cls = golden.tensor<tf.Tensor3D>(`inputs.cotangent_cls.${suffix}`, [count, 1, width]);
    const zeros = tf.zeros<tf.Rank.R3>([count, skipped - 1, width]);
    return {
      prefix: skipped > 1 ? tf.concat([cls, zeros], 1) : cls,
      patches: golden.tensor<tf.Tensor3D>(`inputs.cotangent_patch.${suffix}`),
    };
  });
}

/** The sum of products of tokens and cotangents. */
export function along(tokens: GroupTokens, cotangent: GroupTokens): number {
  const values = (x: tf.Tensor): Float32Array => x.dataSync() as Float32Array;
  return (
    dot(values(tokens.prefix), values(cotangent.prefix)) +
    dot(values(tokens.patches), values(cotangent.patches))
  );
}

export function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
}
