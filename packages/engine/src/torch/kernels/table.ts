/** How a kernel enters TF.js's registry. */
import type { KernelConfig, TensorInfo } from "@tensorflow/tfjs-core";
import type { TorchBackend } from "../backend.js";

/** TF.js's input types under noUncheckedIndexedAccess allow undefined where the kernel is never called so. */
type Present<I> = I extends readonly unknown[] ? I : { [K in keyof I]: Exclude<I[K], undefined> };

/** Computes a kernel's outputs. Inputs and attributes are what TF.js documents for its name. */
export type Kernel<I, A> = (
  backend: TorchBackend,
  inputs: Present<I>,
  attrs: A,
) => TensorInfo | TensorInfo[];

/** A registry entry; TF.js passes inputs and attributes untyped, `I` and `A` are the name's own. */
export function kernel<I, A = unknown>(kernelName: string, run: Kernel<I, A>): KernelConfig {
  return {
    kernelName,
    backendName: "torch",
    kernelFunc: ({ inputs, backend, attrs }) =>
      run(backend as TorchBackend, inputs as unknown as Present<I>, attrs as unknown as A),
  };
}
