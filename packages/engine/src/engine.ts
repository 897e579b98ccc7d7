/** What an engine is to the rest of Paddock, and the names there are. */
import type * as tf from "@tensorflow/tfjs-core";
import type { FlatMath } from "./flat.js";

export type EngineName = "torch" | "tensorflow" | "wasm";

export interface EngineOptions {
  /** `auto` takes the first that works of torch, tensorflow, wasm. */
  readonly name: EngineName | "auto";
  /** Threads of one op. `wasm` always has one. */
  readonly threads: number;
  /** `cpu`, `cuda` or `cuda:<n>`; left out: a GPU if the engine sees one. */
  readonly device?: string;
}

/** A running engine: the active TF.js backend of this thread. */
export interface Engine {
  readonly name: EngineName;
  readonly device: string;
  readonly threads: number;
  /** Of the library that computes, e.g. `libtorch 2.13.0`. */
  readonly version: string;
  /** One sentence: why this engine. */
  readonly why: string;
  /** Null where the engine has none; the caller then uses its own reference. */
  readonly flat: FlatMath | null;
  /** Live tensors and the bytes they hold, device memory included. */
  memory(): { readonly tensors: number; readonly bytes: number };
  /**
   * A tensor [length] over a flat vector. On `torch` on a CPU it reads the memory of a view of a
   * SharedArrayBuffer in place: nothing is copied, later writes show, and slices and reshapes of it
   * cost nothing either. Elsewhere it is a copy. The caller disposes it.
   */
  tensorFromFlat(values: Float32Array): tf.Tensor1D;
  /** Copies a float32 tensor's values into `out`, which has its number of elements. */
  readInto(tensor: tf.Tensor, out: Float32Array): void;
  /** Frees the engine's tensors and takes its backend out of TF.js. */
  close(): void;
}

/** What there is on this machine, for `paddock doctor`. */
export interface EngineDescription {
  readonly name: EngineName;
  readonly available: boolean;
  readonly version: string | null;
  readonly device: string | null;
  /** Why it is not available, or what else to know. */
  readonly note: string;
}
