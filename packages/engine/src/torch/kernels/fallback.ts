/**
 * What libtorch has nothing for (strings, ragged and sparse tensors, non-maximum suppression and other
 * detection ops) runs in TF.js's plain JavaScript backend: values go there and back. Slow, so never for an
 * op that a model trains with. Complex numbers are left out: `torch` stores none.
 */
import "@tensorflow/tfjs-backend-cpu";
import * as tf from "@tensorflow/tfjs-core";
import type { TorchBackend } from "../backend.js";

const complex = new Set(["Complex", "ComplexAbs", "Real", "Imag", "FFT", "IFFT"]);

/** Kernels for the names that JavaScript's backend has and `known` does not. */
export function fallbackKernels(known: ReadonlySet<string>): tf.KernelConfig[] {
  return tf
    .getKernelsForBackend("cpu")
    .filter(({ kernelName }) => !known.has(kernelName) && !complex.has(kernelName))
    .map(({ kernelName, kernelFunc }) => ({
      kernelName,
      backendName: "torch",
      kernelFunc: (call) => runElsewhere(kernelFunc, call),
    }));
}

type KernelCall = Parameters<tf.KernelFunc>[0];

function runElsewhere(run: tf.KernelFunc, { inputs, backend, attrs }: KernelCall) {
  const torch = backend as TorchBackend;
  const elsewhere = tf.findBackend("cpu");
  const written: tf.DataId[] = [];
  const send = (x: tf.TensorInfo): tf.TensorInfo => {
    const dataId = elsewhere.write(torch.readSync(x.dataId), x.shape, x.dtype);
    written.push(dataId);
    const { shape, dtype } = x;
    return Object.assign({ dataId, shape, dtype }, { rank: shape.length }); // some kernels ask a tensor's rank
  };
  const fetch = ({ dataId, shape, dtype }: tf.TensorInfo): tf.TensorInfo => {
    written.push(dataId);
    return { dataId: torch.write(elsewhere.readSync(dataId), shape, dtype), shape, dtype };
  };
  try {
    const sent = mapTensors(inputs, send);
    const results = run({ inputs: sent, backend: elsewhere, ...(attrs && { attrs }) });
    return Array.isArray(results) ? results.map(fetch) : fetch(results);
  } finally {
    for (const dataId of new Set(written)) elsewhere.disposeData(dataId, true);
  }
}

/** Inputs come as an object or a list; some values are lists of tensors themselves. */
function mapTensors<T>(inputs: T, send: (x: tf.TensorInfo) => tf.TensorInfo): T {
  const map = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(map);
    return value === null || value === undefined ? value : send(value as tf.TensorInfo);
  };
  if (Array.isArray(inputs)) return map(inputs) as T;
  const entries = Object.entries(inputs as Record<string, unknown>);
  return Object.fromEntries(entries.map(([name, value]) => [name, map(value)])) as T;
}
