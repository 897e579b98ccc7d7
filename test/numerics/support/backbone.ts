/** Official parameter names, images and masks as the model takes them. */
import type { CropGroup, UnitTensors, VitConfig } from "@paddock/model";
import type * as tf from "@tensorflow/tfjs-core";
import type { Golden } from "./safetensors.js";

/** Our name of an official parameter: `blocks.<chunk>.<index>` becomes `blocks.<index>`. */
export function plainName(name: string): string {
  return name.replace(/blocks\.\d+\.(\d+)\./, "blocks.$1.");
}

/** Tensors of all parameters under `prefix`, by our names. Convolutions become matrices. */
export function parametersOf(golden: Golden, prefix: string, ours = ""): UnitTensors {
  const tensors: Record<string, tf.Tensor> = {};
  for (const name of golden.names(prefix)) {
    const shape = golden.shape(name);
    const [out = 0, ...inputs] = shape;
    const matrix = [out, inputs.reduce((product, side) => product * side, 1)];
    tensors[ours + plainName(name.slice(prefix.length))] = golden.tensor(
      name,
      shape.length === 4 ? matrix : shape,
    );
  }
  return tensors;
}

/** The configuration of a recorded backbone. */
export function configOf(config: Record<string, unknown>): VitConfig {
  const ffn = String(config["ffn_layer"] ?? "mlp").startsWith("swiglu") ? "swiglu" : "mlp";
  return {
    width: Number(config["embed"]),
    depth: Number(config["depth"]),
    heads: Number(config["heads"]),
    patchSize: Number(config["patch"]),
    registers: Number(config["registers"]),
    ffn,
    normEps: Number(config["norm_eps"]),
    gridSide: Number(config["img"]) / Number(config["patch"]),
    interpolateOffset: Number(config["interpolate_offset"]),
    interpolateAntialias: config["interpolate_antialias"] === true,
  };
}

/** Images [n,C,H,W] of a golden file, with the masked patches [n,P] if a mask is named. */
export function cropsOf(golden: Golden, images: string, mask?: string): CropGroup {
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
export function accumulate(sums: Map<string, Float32Array>, grads: UnitTensors): void {
  for (const [name, tensor] of Object.entries(grads)) {
    const values = tensor.dataSync() as Float32Array;
    const known = sums.get(name);
    sums.set(name, known ? known.map((value, i) => value + (values[i] as number)) : values.slice());
    tensor.dispose();
  }
}
