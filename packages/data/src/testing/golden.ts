/** Reads the recorded numbers in `fixtures/` (safetensors), and measures distances to them. For tests. */
import { readFileSync } from "node:fs";
import { invariant } from "@paddock/contract";
import type { Channels, Image } from "../image.js";

export interface Golden {
  /** Values of a tensor, in order. */
  values(name: string): Float32Array | Float64Array | Int32Array | Uint8Array;
  shape(name: string): readonly number[];
  has(name: string): boolean;
  /** A metadata entry, parsed as JSON. */
  meta(key: string): unknown;
}

interface HeaderEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

export function readGolden(name: string): Golden {
  const file = readFileSync(new URL(`../../fixtures/${name}.safetensors`, import.meta.url));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as Record<string, unknown>;
  const metadata = header["__metadata__"] as Record<string, string>;
  const data = file.subarray(8 + headerBytes);
  const entryOf = (tensor: string): HeaderEntry => {
    const entry = header[tensor] as HeaderEntry | undefined;
    invariant(entry, `${name} holds no tensor ${tensor}`);
    return entry;
  };
  return {
    has: (tensor) => tensor in header,
    shape: (tensor) => entryOf(tensor).shape,
    values(tensor) {
      const { dtype, data_offsets } = entryOf(tensor);
      const bytes = data.buffer.slice(
        data.byteOffset + data_offsets[0],
        data.byteOffset + data_offsets[1],
      );
      if (dtype === "F32") return new Float32Array(bytes);
      if (dtype === "F64") return new Float64Array(bytes);
      return dtype === "I32" ? new Int32Array(bytes) : new Uint8Array(bytes);
    },
    meta: (key) => JSON.parse(metadata[key] as string),
  };
}

/** A recorded [H, W, 3] or [H, W, 1] tensor as an image. */
export function goldenImage(golden: Golden, tensor: string): Image {
  const [height, width, channels] = golden.shape(tensor) as [number, number, Channels];
  return { height, width, channels, pixels: golden.values(tensor) as Uint8Array };
}

/** Largest and mean absolute difference. */
export function distance(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
): { max: number; mean: number } {
  invariant(a.length === b.length, `lengths ${a.length} and ${b.length}`);
  let [max, sum] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] as number) - (b[i] as number));
    max = Math.max(max, difference);
    sum += difference;
  }
  return { max, mean: sum / a.length };
}

/** [C, H, W] as [H, W, C]. */
export function channelsLast(values: ArrayLike<number>, shape: readonly number[]): Float32Array {
  const [channels, height, width] = shape as [number, number, number];
  const size = height * width;
  return Float32Array.from(
    { length: size * channels },
    (_, i) => values[(i % channels) * size + Math.floor(i / channels)] as number,
  );
}
