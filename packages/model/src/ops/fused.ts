/** The door to an engine's fused kernels (KERNELS.md): ops ask here before they compose TF.js ops themselves. */
import * as tf from "@tensorflow/tfjs-core";

type Inputs = Readonly<Record<string, tf.Tensor | undefined>>;

/** Kernels that have been looked up, of one backend: TF.js's registry builds a key of both names for every question. */
const known = { backend: "", kernels: new Map<string, tf.KernelConfig | undefined>() };

function kernelOf(name: string): tf.KernelConfig | undefined {
  const backend = tf.getBackend();
  if (known.backend !== backend) {
    known.backend = backend;
    known.kernels.clear();
  }
  if (!known.kernels.has(name)) known.kernels.set(name, tf.getKernel(name, backend) ?? undefined);
  return known.kernels.get(name);
}

/** Whether the active backend brings the kernel. */
export function hasFused(name: string): boolean {
  return kernelOf(name) !== undefined;
}

/**
 * Runs a fused kernel; absent inputs are left out. The caller owns the outputs. Past TF.js's `runKernel`, whose tape, profile and
 * leak check cost as much as a small kernel: what is called here is on no tape.
 * @throws RangeError if the active backend does not bring it
 */
export function runFused(name: string, inputs: Inputs, attrs: object = {}): tf.Tensor[] {
  const kernel = kernelOf(name);
  if (!kernel) throw new RangeError(`${tf.getBackend()} has no kernel ${name}`);
  const present: Record<string, tf.Tensor> = {};
  for (const key in inputs) {
    const tensor = inputs[key];
    if (tensor) present[key] = tensor;
  }
  const engine = tf.engine();
  const outputs = kernel.kernelFunc({
    inputs: present,
    attrs: attrs as tf.NamedAttrMap,
    backend: engine.backend,
  });
  return Array.isArray(outputs)
    ? outputs.map((output) => engine.makeTensorFromTensorInfo(output))
    : [engine.makeTensorFromTensorInfo(outputs)];
}

/** Column sums of x [M,C]. As a product with ones: TF.js's wasm sum over the outer axis transposes first. */
export function columnSums(x: tf.Tensor2D): tf.Tensor1D {
  return tf.tidy(() => tf.reshape(tf.matMul(tf.ones([1, x.shape[0]]), x), [x.shape[1]]));
}
