/** Official parameter names, images and masks as the model takes them. */
import type { CropGroup, UnitTensors } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import type { Check, Tolerance } from "./check.js";
import type { Golden } from "./file.js";

/** What is read of a file. */
export type Recorded = Pick<Golden, "names" | "has" | "shape" | "f32" | "u8" | "tensor">;

/** Gradients by our names. */
export type Sums = Map<string, Float32Array>;

/** Our name of an official parameter: `blocks.<chunk>.<index>` becomes `blocks.<index>`, storage tokens are registers. */
export function plainName(name: string): string {
  return name
    .replace(/blocks\.\d+\.(\d+)\./, "blocks.$1.")
    .replace(/\bstorage_tokens$/, "register_tokens");
}

/** DINOv3's SwiGLU has its two inputs apart, ours are the halves of one. */
const halfOfFused = /\.mlp\.w([12])\.(weight|bias)$/;

/** Tensors of all parameters under `prefix`, by our names. Convolutions become matrices. */
export function parametersOf(golden: Recorded, prefix: string, ours = ""): UnitTensors {
  const tensors: Record<string, tf.Tensor> = {};
  for (const name of golden.names(prefix)) {
    const half = halfOfFused.exec(name);
    if (half?.[1] === "2") continue;
    const plain = ours + plainName(name.slice(prefix.length));
    if (half) tensors[plain.replace(/w1\.(\w+)$/, "w12.$1")] = fused(golden, name);
    else tensors[plain] = golden.tensor(name, matrixShape(golden.shape(name)));
  }
  return tensors;
}

function fused(golden: Recorded, first: string): tf.Tensor {
  const second = first.replace(/w1\.(\w+)$/, "w2.$1");
  return tf.tidy(() => tf.concat([golden.tensor(first), golden.tensor(second)]));
}

function matrixShape(shape: number[]): number[] {
  const [out = 0, ...inputs] = shape;
  return shape.length === 4 ? [out, inputs.reduce((product, side) => product * side, 1)] : shape;
}

/** Compares every recorded gradient `<prefix><official name>` with ours; one that we do not have is zero. */
export function checkGradients(
  golden: Recorded,
  check: Check,
  sums: Sums,
  { prefix, ours, tolerance }: { prefix: string; ours: string; tolerance: Tolerance },
): void {
  for (const name of golden.names(prefix)) {
    const official = name.slice(prefix.length);
    if (official.startsWith("inputs.")) continue;
    check.tensor(name, gradientOf(golden, sums, name, ours + plainName(official)), tolerance);
  }
}

function gradientOf(golden: Recorded, sums: Sums, name: string, ours: string): Float32Array {
  const half = halfOfFused.exec(ours);
  const size = golden.shape(name).reduce((product, side) => product * side, 1);
  const whole = sums.get(half ? ours.replace(/w[12]\.(\w+)$/, "w12.$1") : ours);
  if (!whole) return new Float32Array(size);
  if (!half) return whole;
  return half[1] === "1" ? whole.subarray(0, size) : whole.subarray(size);
}

/** Images [n,C,H,W] of a golden file, with the masked patches [n,P] if a mask is named. */
export function cropsOf(golden: Recorded, images: string, mask?: string): CropGroup {
  const [count, channels, height, width] = golden.shape(images) as [number, number, number, number];
  const pixels = channelsLast(golden.f32(images), count, channels, height * width);
  if (!mask) return { pixels, count, height, width };
  const maskRows = Int32Array.from([...golden.u8(mask)].flatMap((on, row) => (on ? [row] : [])));
  return { pixels, count, height, width, maskRows };
}

/** [n,C,area] to [n,area,C] */
function channelsLast(
  values: Float32Array,
  count: number,
  channels: number,
  area: number,
): Float32Array {
  const out = new Float32Array(values.length);
  for (let n = 0; n < count; n++) {
    for (let c = 0; c < channels; c++) {
      for (let a = 0; a < area; a++) {
        out[(n * area + a) * channels + c] = values[(n * channels + c) * area + a] as number;
      }
    }
  }
  return out;
}

/** Adds gradients by name into host arrays, and disposes them. */
export function accumulate(sums: Sums, grads: UnitTensors): void {
  for (const [name, tensor] of Object.entries(grads)) {
    const values = tensor.dataSync() as Float32Array;
    const known = sums.get(name);
    sums.set(name, known ? known.map((value, i) => value + (values[i] as number)) : values.slice());
    tensor.dispose();
  }
}

/** The value of `config[key]`, which must be one of `known`; `fallback` if there is none. */
export function oneOf<T extends string>(
  config: Record<string, unknown>,
  key: string,
  known: readonly T[],
  fallback: T,
): T {
  const value = config[key] ?? fallback;
  const found = known.find((option) => option === value);
  if (found === undefined) {
    throw new RangeError(`config.${key}: expected one of ${known.join(", ")}, received ${value}`);
  }
  return found;
}

/** The first of these numbers that the config has. @throws RangeError if it has none */
export function numberOf(config: Record<string, unknown>, ...keys: readonly string[]): number {
  for (const key of keys) {
    const value = config[key];
    if (typeof value === "number") return value;
  }
  throw new RangeError(`config: expected a number ${keys.join(" or ")}, received none`);
}
