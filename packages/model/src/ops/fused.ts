/** The door to an engine's fused kernels (KERNELS.md): ops ask here before they compose TF.js ops themselves. */
import * as tf from "@tensorflow/tfjs-core";

type Inputs = Readonly<Record<string, tf.Tensor | undefined>>;

/** Whether the active backend brings the kernel. */
export function hasFused(name: string): boolean {
  return tf.getKernel(name, tf.getBackend()) != null;
}

/** Runs a fused kernel; absent inputs are left out. The caller owns the outputs. */
export function runFused(name: string, inputs: Inputs, attrs: object = {}): tf.Tensor[] {
  const present: Record<string, tf.Tensor> = {};
  for (const [key, tensor] of Object.entries(inputs)) if (tensor) present[key] = tensor;
  const outputs: tf.Tensor | tf.Tensor[] = tf
    .engine()
    .runKernel(name, present, attrs as tf.NamedAttrMap);
  return Array.isArray(outputs) ? outputs : [outputs];
}

/** Column sums of x [M,C]. As a product with ones: TF.js's wasm sum over the outer axis transposes first. */
export function columnSums(x: tf.Tensor2D): tf.Tensor1D {
  return tf.tidy(() => tf.reshape(tf.matMul(tf.ones([1, x.shape[0]]), x), [x.shape[1]]));
}
