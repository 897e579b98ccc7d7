/**
 * Rotary positions: queries and keys of patches are rotated by angles that depend on where the patch is (dinov3
 * layers/attention.py). Feature i of a head forms a plane with feature i + d/2. Shapes: T rows, C features, H heads,
 * d = C / H, P patch positions: those of one sequence of each group, the groups one after the other.
 */
import * as tf from "@tensorflow/tfjs-core";
import type { AttentionShape } from "./attention.js";
import { roundToBfloat16 } from "./bfloat16.js";
import { hasFused, runFused } from "./fused.js";

export interface Rotation {
  /** float32 [P, d/2]: the angles' cosines and sines. */
  readonly cos: tf.Tensor2D;
  readonly sin: tf.Tensor2D;
  /** Rows at the head of a sequence without a position: cls and registers. */
  readonly prefix: number;
  /** bf16: q and k are rounded to bfloat16, also where they are not rotated, and so is every step of the rotation. */
  readonly dtype: "fp32" | "bf16";
}

/**
 * qkv [T,3C] with q and k rotated. Takes qkv, which may be overwritten: its memory must be nobody else's. The caller owns the
 * result.
 */
export function rotate(qkv: tf.Tensor2D, rotation: Rotation, shape: AttentionShape): tf.Tensor2D {
  return turned(qkv, rotation, shape, false);
}

/** Gradient of `rotate`: dqkv [T,3C] turned back. Takes dqkv as `rotate` takes qkv. */
export function rotateBackward(
  dqkv: tf.Tensor2D,
  rotation: Rotation,
  shape: AttentionShape,
): tf.Tensor2D {
  return turned(dqkv, rotation, shape, true);
}

function turned(
  qkv: tf.Tensor2D,
  { cos, sin, prefix, dtype }: Rotation,
  shape: AttentionShape,
  inverse: boolean,
): tf.Tensor2D {
  const rounded = dtype === "bf16";
  let result: tf.Tensor2D;
  if (hasFused("PaddockRope")) {
    const attrs = { ...shape, prefix, inverse, rounded };
    result = runFused("PaddockRope", { qkv, cos, sin }, attrs)[0] as tf.Tensor2D;
  } else {
    // On the host: TF.js has no op that turns halves of heads, and wasm's memory is the host's anyway.
    const rows = Float32Array.from(qkv.dataSync());
    const tables = { cos: cos.dataSync(), sin: sin.dataSync(), half: cos.shape[1] };
    turnRows(rows, tables, { ...shape, prefix, sign: inverse ? -1 : 1, rounded });
    result = tf.tensor2d(rows, qkv.shape);
  }
  qkv.dispose();
  return result;
}

interface Turn extends AttentionShape {
  readonly prefix: number;
  readonly sign: 1 | -1;
  readonly rounded: boolean;
}

/** Turns q and k of all rows [T,3C]. */
function turnRows(
  rows: Float32Array,
  tables: Tables,
  { numHeads, groups, prefix, sign, rounded }: Turn,
): void {
  const turn = rounded ? turnRounded : turnExact;
  const headWidth = 2 * tables.half;
  let row = 0;
  let before = 0;
  for (const { count, length } of groups) {
    for (let i = 0; i < count * length; i++, row += 3 * numHeads * headWidth) {
      const position = (i % length) - prefix;
      if (position < 0) {
        if (rounded) round(rows, row, 2 * numHeads * headWidth);
        continue;
      }
      const at = (before + position) * tables.half;
      for (let h = 0; h < 2 * numHeads; h++) turn(rows, row + h * headWidth, tables, at, sign);
    }
    before += length - prefix;
  }
}

interface Tables {
  readonly cos: ArrayLike<number>;
  readonly sin: ArrayLike<number>;
  readonly half: number;
}

/** Turns the head of `x` that begins at `head` by the angles of the table row that begins at `at`. */
function turnExact(
  x: Float32Array,
  head: number,
  { cos, sin, half }: Tables,
  at: number,
  sign: number,
): void {
  // hot:
  for (let i = 0; i < half; i++) {
    const [a, b] = [x[head + i] as number, x[head + half + i] as number];
    const [c, s] = [cos[at + i] as number, sign * (sin[at + i] as number)];
    x[head + i] = a * c - b * s;
    x[head + half + i] = b * c + a * s;
  }
}

/** The same as bfloat16 arithmetic does it: rounded after each operation. */
function turnRounded(
  x: Float32Array,
  head: number,
  { cos, sin, half }: Tables,
  at: number,
  sign: number,
): void {
  const r = roundToBfloat16;
  for (let i = 0; i < half; i++) {
    const [a, b] = [r(x[head + i] as number), r(x[head + half + i] as number)];
    const [c, s] = [cos[at + i] as number, sign * (sin[at + i] as number)];
    x[head + i] = r(r(a * c) - r(b * s));
    x[head + half + i] = r(r(b * c) + r(a * s));
  }
}

function round(x: Float32Array, from: number, values: number): void {
  for (let i = from; i < from + values; i++) x[i] = roundToBfloat16(x[i] as number);
}
