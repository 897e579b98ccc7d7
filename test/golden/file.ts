/** A golden file: a safetensors header (JSON), then little-endian data. Its README (test/fixtures/golden) explains names and metadata. */
import { readFileSync } from "node:fs";
import * as path from "node:path";
import * as tf from "@tensorflow/tfjs-core";

interface Entry {
  readonly dtype: "F32" | "F64" | "I32" | "U8";
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

/** The projects whose code the files were recorded from, and their augmentations. */
const families = ["dinov1", "dinov2", "dinov3", "augment"] as const;
export type Family = (typeof families)[number];

export interface Golden {
  /** File name without folder and suffix. */
  readonly name: string;
  /** The folder it lies in. */
  readonly family: Family;
  readonly path: string;
  /** Everything needed to repeat the recorded call. */
  // biome-ignore lint/suspicious/noExplicitAny: JSON of many forms, each read by one kind
  readonly config: any;
  /** What was run, in words. */
  readonly what: string;
  /** Tensor names that start with the prefix. */
  names(prefix?: string): string[];
  has(name: string): boolean;
  shape(name: string): number[];
  /** F32 as Float32Array, F64 as Float64Array, I32 as Int32Array, U8 as Uint8Array. */
  f32(name: string): Float32Array;
  f64(name: string): Float64Array;
  i32(name: string): Int32Array;
  u8(name: string): Uint8Array;
  /** Whatever its dtype. */
  values(name: string): Float32Array | Float64Array | Int32Array | Uint8Array;
  /** A new fp32 tensor of the recorded shape, or of `shape`. */
  tensor<T extends tf.Tensor>(name: string, shape?: number[]): T;
  /** A JSON entry of the metadata; null if there is none. */
  metadata<T>(key: string): T;
}

const arrays = { F32: Float32Array, F64: Float64Array, I32: Int32Array, U8: Uint8Array } as const;

/** @throws RangeError if the file is no golden file. */
export function readGolden(file: string): Golden {
  const bytes = readFileSync(file);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const { __metadata__, ...entries } = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes)) as {
    __metadata__?: { what?: string; config?: string } & Record<string, string>;
  } & Record<string, Entry>;
  if (!__metadata__?.what || !__metadata__.config) {
    throw new RangeError(`${file}: expected metadata "what" and "config", received none`);
  }
  const table = entries as Record<string, Entry>;
  const name = path.basename(file, ".safetensors");
  const entryOf = (tensor: string): Entry => {
    const entry = table[tensor];
    if (!entry) throw new RangeError(`${name} has no tensor ${tensor}`);
    return entry;
  };
  const read = <K extends Entry["dtype"]>(tensor: string, dtype: K) => {
    const entry = entryOf(tensor);
    if (entry.dtype !== dtype) {
      throw new TypeError(`${name} ${tensor}: expected ${dtype}, received ${entry.dtype}`);
    }
    const [start, end] = entry.data_offsets;
    const copy = Uint8Array.from(bytes.subarray(8 + headerBytes + start, 8 + headerBytes + end));
    return new arrays[dtype](copy.buffer) as InstanceType<(typeof arrays)[K]>;
  };
  const metadata = <T>(key: string): T => JSON.parse(__metadata__[key] ?? "null") as T;
  return {
    name,
    family: familyOf(file, __metadata__.what),
    path: file,
    config: metadata("config"),
    what: __metadata__.what,
    names: (prefix = "") => Object.keys(table).filter((tensor) => tensor.startsWith(prefix)),
    has: (tensor) => tensor in table,
    shape: (tensor) => entryOf(tensor).shape,
    f32: (tensor) => read(tensor, "F32"),
    f64: (tensor) => read(tensor, "F64"),
    i32: (tensor) => read(tensor, "I32"),
    u8: (tensor) => read(tensor, "U8"),
    values: (tensor) => read(tensor, entryOf(tensor).dtype),
    tensor: <T extends tf.Tensor>(tensor: string, shape?: number[]): T =>
      tf.tensor(read(tensor, "F32"), shape ?? entryOf(tensor).shape) as T,
    metadata,
  };
}

/** The folder's name, or what the description says. */
function familyOf(file: string, what: string): Family {
  const folder = path.basename(path.dirname(file));
  const named = families.find((family) => family === folder);
  if (named) return named;
  const version = /\(v([123])\)/.exec(what)?.[1];
  return version ? (`dinov${version}` as Family) : "augment";
}
