/** What an engine is to the rest of Paddock, and the names there are. */
import type * as tf from "@tensorflow/tfjs-core";
import type { FlatMath } from "./flat.js";
import type { Precision } from "./native.js";
import type { DeviceVectors } from "./torch/vectors.js";

export type EngineName = "torch" | "tensorflow" | "wasm";

export interface EngineOptions {
  /** `auto` takes the first that works of torch, tensorflow, wasm. */
  readonly name: EngineName | "auto";
  /** Threads of one op. `wasm` always has one. */
  readonly threads: number;
  /** `cpu`, `cuda` or `cuda:<n>`; left out: a GPU if the engine sees one. */
  readonly device?: string;
  /** Which of this machine's processes this is, from 0: without `device` they take the GPUs in turn. */
  readonly localRank?: number;
  /** `library`: flat vectors lie in the library's memory as on a GPU, also on a CPU. For tests of that. */
  readonly vectors?: "library";
}

/** Bytes of a GPU as the caching allocator sees them. Peaks count since the engine was opened. */
export interface DeviceMemory {
  readonly allocatedBytes: number;
  readonly peakAllocatedBytes: number;
  /** Taken from the driver, used or kept for later. */
  readonly reservedBytes: number;
  readonly peakReservedBytes: number;
  /** Requests that failed for want of memory. */
  readonly failures: number;
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
  /** Where flat vectors live on the device; null where they live on the host. */
  readonly vectors: DeviceVectors | null;
  /** What matrix products can be computed in: fp32 everywhere, bf16 and fp16 on `torch` (kernel `PaddockToPrecision`). */
  readonly precisions: readonly Precision[];
  /**
   * Lets products of float32 tensors round their operands to TF32's 10 bits where that is many times faster (CUDA): for runs that
   * chose a lower precision anyway. Off at first; the whole process's setting.
   */
  allowTf32(allowed: boolean): void;
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
  /** Resolves when everything launched so far is done. At once on CPUs. */
  synchronize(): void;
  /** The device allocator's state, or null where there is none (CPUs) or the library cannot tell. */
  deviceMemory(): DeviceMemory | null;
  /** Frees the engine's tensors and takes its backend out of TF.js. */
  close(): void;
}

/** What there is on this machine, for `paddock doctor`. */
export interface EngineDescription {
  readonly name: EngineName;
  readonly available: boolean;
  readonly version: string | null;
  readonly device: string | null;
  /** Threads of one op: `one`, or as many as it is opened with. */
  readonly threads: "one" | "chosen";
  /** Why it is not available, or what else to know. */
  readonly note: string;
}
