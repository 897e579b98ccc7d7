/** Opens the `torch` engine on this thread. */
import * as tf from "@tensorflow/tfjs-core";
import type { DeviceMemory, Engine, EngineOptions } from "../engine.js";
import { EngineError } from "../errors.js";
import { nativeFlatMath } from "../flat.js";
import { loadNative, type Native } from "../native.js";
import { registerTorch } from "./register.js";
import { DeviceVectors } from "./vectors.js";

/**
 * The engine on `device` (a GPU if libtorch sees one, when left out), made TF.js's backend.
 * @throws EngineError `engine-unavailable` if the addon is not there or the device is not.
 */
export async function openTorch({
  threads,
  device,
  localRank = 0,
  vectors,
}: Omit<EngineOptions, "name">): Promise<Engine> {
  const load = loadNative();
  if (load.kind === "absent") throw new EngineError(load.why, { code: "engine-unavailable" });
  if (!Number.isInteger(threads) || threads < 1) {
    throw new EngineError(`threads must be a whole number from 1, got ${threads}`, {
      code: "engine-unavailable",
    });
  }
  const { native, stamp } = load;
  native.setThreads(threads);
  const gpus = native.cudaDevices();
  const wanted = device ?? (gpus > 0 ? `cuda:${localRank % gpus}` : "cpu");
  const chosen = setDevice(wanted);
  const backend = registerTorch(native);
  await tf.setBackend("torch");
  return {
    name: "torch",
    device: chosen,
    threads,
    version: `libtorch ${stamp.version}`,
    why: `libtorch ${stamp.version} was found (${stamp.from}) and its addon loads`,
    flat: nativeFlatMath(native),
    vectors: chosen === "cpu" && vectors === undefined ? null : new DeviceVectors(backend),
    precisions: ["fp32", "bf16", "fp16"],
    allowTf32: (allowed) => native.allowTf32(allowed),
    synchronize: () => native.synchronize(),
    deviceMemory: () => (chosen === "cpu" ? null : deviceMemory(native)),
    memory: () => ({ tensors: native.numTensors(), bytes: native.numBytes() }),
    tensorFromFlat: (values) => {
      const { dataId, dtype } = backend.borrow(values, [values.length]);
      return tf.engine().makeTensorFromDataId(dataId, [values.length], dtype) as tf.Tensor1D;
    },
    readInto: (tensor, out) => backend.readInto(tensor, out),
    close: () => tf.removeBackend("torch"),
  };

  function setDevice(name: string): string {
    try {
      return native.setDevice(name);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new EngineError(`device ${name} cannot be used: ${reason}`, {
        code: "engine-unavailable",
        cause: error,
      });
    }
  }
}

function deviceMemory(native: Native): DeviceMemory | null {
  const numbers = new Float64Array(5);
  if (!native.deviceMemory(numbers)) return null;
  const [allocated = 0, peakAllocated = 0, reserved = 0, peakReserved = 0, failures = 0] = numbers;
  return {
    allocatedBytes: allocated,
    peakAllocatedBytes: peakAllocated,
    reservedBytes: reserved,
    peakReservedBytes: peakReserved,
    failures,
  };
}
