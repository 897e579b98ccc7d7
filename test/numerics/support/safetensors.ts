/** Reads the golden files: a safetensors header (JSON), then little-endian data. */
import { readFileSync } from "node:fs";
import * as tf from "@tensorflow/tfjs-core";

interface Entry {
  readonly dtype: "F32" | "F64" | "I32" | "U8";
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

export interface Golden {
  /** Everything needed to repeat the recorded call. */
  // biome-ignore lint/suspicious/noExplicitAny: JSON of many forms, each read by one test
  readonly config: any;
  /** Tensor names that start with the prefix. */
  names(prefix?: string): string[];
  has(name: string): boolean;
  shape(name: string): number[];
  /** F32 as Float32Array, F64 as Float64Array, I32 as Int32Array, U8 as Uint8Array. */
  f32(name: string): Float32Array;
  f64(name: string): Float64Array;
  i32(name: string): Int32Array;
  u8(name: string): Uint8Array;
  /** A new fp32 tensor of the recorded shape, or of `shape`. */
  tensor<T extends tf.Tensor>(name: string, shape?: number[]): T;
  /** A JSON entry of the metadata. */
  metadata<T>(key: string): T;
}

export function readGolden(name: string): Golden {
  const url = new URL(`../../fixtures/golden/${name}.safetensors`, import.meta.url);
  const file = readFileSync(url);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...entries } = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as {
    __metadata__: Record<string, string>;
  } & Record<string, Entry>;
  const table = entries as Record<string, Entry>;
  const entryOf = (tensor: string): Entry => {
    const entry = table[tensor];
    if (!entry) throw new RangeError(`${name} has no tensor ${tensor}`);
    return entry;
  };
  const bytesOf = (tensor: string, dtype: Entry["dtype"]): ArrayBuffer => {
    const entry = entryOf(tensor);
    if (entry.dtype !== dtype) {
      throw new TypeError(`${name} ${tensor}: expected ${dtype}, received ${entry.dtype}`);
    }
    const [start, end] = entry.data_offsets;
    return Uint8Array.from(file.subarray(8 + headerBytes + start, 8 + headerBytes + end)).buffer;
  };
  const metadata = <T>(key: string): T => JSON.parse(__metadata__[key] ?? "null") as T;
  return {
    config: metadata("config"),
    names: (prefix = "") => Object.keys(table).filter((tensor) => tensor.startsWith(prefix)),
    has: (tensor) => tensor in table,
    shape: (tensor) => entryOf(tensor).shape,
    f32: (tensor) => new Float32Array(bytesOf(tensor, "F32")),
    f64: (tensor) => new Float64Array(bytesOf(tensor, "F64")),
    i32: (tensor) => new Int32Array(bytesOf(tensor, "I32")),
    u8: (tensor) => new Uint8Array(bytesOf(tensor, "U8")),
    tensor: <T extends tf.Tensor>(tensor: string, shape?: number[]): T => {
      const values = new Float32Array(bytesOf(tensor, "F32"));
      return tf.tensor(values, shape ?? entryOf(tensor).shape) as T;
    },
    metadata,
  };
}
