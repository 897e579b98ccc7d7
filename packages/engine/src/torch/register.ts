/** Puts the backend and its kernels into this thread's TF.js, once. */
import * as tf from "@tensorflow/tfjs-core";
import type { Native } from "../native.js";
import { TorchBackend } from "./backend.js";
import { convolutionKernels } from "./kernels/convolution.js";
import { elementwiseKernels } from "./kernels/elementwise.js";
import { fallbackKernels } from "./kernels/fallback.js";
import { fusedKernels } from "./kernels/fused.js";
import { imageKernels } from "./kernels/image.js";
import { indexingKernels } from "./kernels/indexing.js";
import { reduceKernels } from "./kernels/reduce.js";
import { shapeKernels } from "./kernels/shape.js";

const tables = [
  elementwiseKernels,
  reduceKernels,
  shapeKernels,
  indexingKernels,
  convolutionKernels,
  imageKernels,
  fusedKernels,
];

/** Registers `torch` with TF.js and returns its backend. Repeated calls return the same one. */
export function registerTorch(native: Native): TorchBackend {
  const existing = tf.findBackend("torch");
  if (existing instanceof TorchBackend) return existing;
  const backend = new TorchBackend(native);
  tf.registerBackend("torch", () => backend);
  if (tf.getKernelsForBackend("torch").length === 0) {
    const native = tables.flat();
    const known = new Set(native.map(({ kernelName }) => kernelName));
    for (const entry of [...native, ...fallbackKernels(known)]) tf.registerKernel(entry);
  }
  return backend;
}
