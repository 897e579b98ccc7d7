/** Chooses an engine, and says which there are. */
import * as tf from "@tensorflow/tfjs-core";
import type { Engine, EngineDescription, EngineOptions } from "./engine.js";
import { EngineError } from "./errors.js";
import { loadNative } from "./native.js";
import { askTensorflow, chooseTensorflow } from "./tensorflow/installed.js";
import { openTensorflow } from "./tensorflow/open.js";
import { openTorch } from "./torch/open.js";
import { openWasm } from "./wasm.js";

/**
 * The engine asked for, as this thread's TF.js backend; `auto` falls back from torch to tensorflow to wasm
 * and says why. Thread counts only hold if `threadEnvironment` was set when the process started.
 * @throws EngineError `engine-unavailable` if the engine asked for by name cannot run here.
 */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  tf.env().set("PROD", true); // TF.js checks every argument of every op otherwise: up to 30 % of its cost
  switch (options.name) {
    case "torch":
      return await openTorch(options);
    case "tensorflow":
      return await openTensorflow(options.threads, options.device);
    case "wasm":
      return await openWasm();
    case "auto":
      return await openBest(options);
  }
}

async function openBest(options: EngineOptions): Promise<Engine> {
  const load = loadNative();
  if (load.kind === "loaded") return await openTorch(options);
  try {
    const engine = await openTensorflow(options.threads, options.device);
    return { ...engine, why: `${load.why}; ${engine.why}` };
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    const engine = await openWasm();
    return { ...engine, why: `${load.why}; ${error.message}` };
  }
}

/**
 * What could run here, best first. Loads the torch addon and asks an installed TensorFlow in a process of its own (1 to 2 s);
 * opens nothing.
 */
export function describeEngines(): EngineDescription[] {
  return [describeTorch(), describeTensorflow(), describeWasm()];
}

const absent = { available: false, version: null, device: null, threads: "chosen" } as const;

function describeTorch(): EngineDescription {
  const load = loadNative();
  if (load.kind === "absent") {
    return { name: "torch", ...absent, note: load.why };
  }
  const { native, stamp } = load;
  return {
    name: "torch",
    threads: "chosen",
    available: true,
    version: `libtorch ${stamp.version}`,
    device: devicesOf(native.cudaDevices()),
    note: `found by ${stamp.from}, products by ${native.productLibrary()}`,
  };
}

function devicesOf(cuda: number): string {
  if (cuda === 0) return "cpu";
  return cuda === 1 ? "cuda:0" : `cuda:0 to cuda:${cuda - 1}`;
}

function describeTensorflow(): EngineDescription {
  const chosen = chooseTensorflow();
  if (chosen === undefined) {
    return {
      name: "tensorflow",
      ...absent,
      note: "no tfjs-node is installed (npm run setup:tensorflow makes one)",
    };
  }
  const answer = askTensorflow(chosen);
  if (answer.kind === "fails") {
    return { name: "tensorflow", ...absent, note: `${chosen.name} does not load: ${answer.why}` };
  }
  return {
    name: "tensorflow",
    available: true,
    version: `TensorFlow ${answer.version}`,
    device: answer.hasGpu ? "cuda" : "cpu",
    threads: "chosen",
    note: chosen.name,
  };
}

function describeWasm(): EngineDescription {
  return {
    name: "wasm",
    available: true,
    version: `tfjs ${tf.version_core}`,
    device: "cpu",
    threads: "one",
    note: "an order of magnitude slower than torch",
  };
}
