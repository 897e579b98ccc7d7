/** The parts of an engine that TF.js's public functions can do for any backend. */
import * as tf from "@tensorflow/tfjs-core";
import type { Engine } from "./engine.js";

type Portable = Pick<
  Engine,
  | "flat"
  | "vectors"
  | "precisions"
  | "memory"
  | "tensorFromFlat"
  | "readInto"
  | "allowTf32"
  | "synchronize"
  | "deviceMemory"
  | "close"
>;

/** Copies instead of views, counts of TF.js instead of the library's own. */
export function portable(backendName: string): Portable {
  return {
    flat: null,
    vectors: null,
    precisions: ["fp32"],
    memory: () => ({ tensors: tf.memory().numTensors, bytes: tf.memory().numBytes }),
    tensorFromFlat: (values) => tf.tensor1d(values.slice()),
    readInto: (tensor, out) => out.set(tensor.dataSync()),
    allowTf32: () => undefined,
    synchronize: () => undefined,
    deviceMemory: () => null,
    close: () => {
      // Its package registers the backend when it is imported, once: leave it ready to be opened again.
      const factory = tf.findBackendFactory(backendName);
      tf.removeBackend(backendName);
      tf.registerBackend(backendName, factory);
    },
  };
}
