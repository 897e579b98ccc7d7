/** Chooses an engine, and says which there are. */
import * as tf from "@tensorflow/tfjs-core";
import type { Engine, EngineDescription, EngineOptions } from "./engine.js";
import { EngineError } from "./errors.js";
import { loadNative } from "./native.js";
import { installedTensorflow, openTensorflow } from "./tensorflow.js";
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
      return await openTensorflow(options.threads);
    case "wasm":
      return await openWasm();
    case "auto":
      return await openBest(options);
  }
}

async function openBest(options: EngineOptions): Promise<Engine> {
  const load = loadNative();
  if (load.kind === "loaded") return await openTorch(options);
  if (installedTensorflow() !== undefined) {
    const engine = await openTensorflow(options.threads).catch(unavailable);
    if (engine !== undefined) return { ...engine, why: `${load.why}; ${engine.why}` };
  }
  const engine = await openWasm();
  return { ...engine, why: `${load.why}, and no tfjs-node works here` };
}

function unavailable(error: unknown): undefined {
  if (!(error instanceof EngineError)) throw error;
}

/** What could run here, best first. Loads the addon, opens nothing. */
export function describeEngines(): EngineDescription[] {
  return [describeTorch(), describeTensorflow(), describeWasm()];
}

function describeTorch(): EngineDescription {
  const load = loadNative();
  if (load.kind === "absent") {
    return { name: "torch", available: false, version: null, device: null, note: load.why };
  }
  const { native, stamp } = load;
  return {
    name: "torch",
    available: true,
    version: `libtorch ${stamp.version}`,
    device: devicesOf(native.cudaDevices()),
    note: `found by ${stamp.from}`,
  };
}

function devicesOf(cuda: number): string {
  if (cuda === 0) return "cpu";
  return cuda === 1 ? "cuda:0" : `cuda:0 to cuda:${cuda - 1}`;
}

function describeTensorflow(): EngineDescription {
  const name = installedTensorflow();
  return {
    name: "tensorflow",
    available: name !== undefined,
    version: name ?? null,
    device: null,
    note: name === undefined ? "no tfjs-node package is installed" : "installed, not loaded",
  };
}

function describeWasm(): EngineDescription {
  return {
    name: "wasm",
    available: true,
    version: `tfjs ${tf.version_core}`,
    device: "cpu",
    note: "one thread, an order of magnitude slower than torch",
  };
}
