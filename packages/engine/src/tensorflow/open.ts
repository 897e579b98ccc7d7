/** Opens the `tensorflow` engine on this thread: TF.js's own binding to TensorFlow. */
import { createRequire } from "node:module";
import * as util from "node:util";
import * as tf from "@tensorflow/tfjs-core";
import type { Engine } from "../engine.js";
import { EngineError } from "../errors.js";
import { portable } from "../portable.js";
import { chooseTensorflow, type InstalledTensorflow } from "./installed.js";

/** What tfjs-node's backend object shows besides TF.js's interface. */
interface TfjsNodeBackend extends tf.KernelBackend {
  readonly isUsingGpuDevice: boolean;
  readonly binding: { readonly TF_Version: string };
}

/**
 * The engine, made TF.js's backend. tfjs-node brings a tfjs-core of its own, but all copies in a thread share one engine
 * object, kernels and tensors; loading fails where they do not. Tensors that are alive when it is closed stay
 * until the thread ends.
 * @throws EngineError `engine-unavailable` if none is installed, none loads, or the device is not the one it sees.
 */
export async function openTensorflow(threads: number, device?: string): Promise<Engine> {
  const chosen = chooseTensorflow();
  if (chosen === undefined) {
    throw unavailable("no tfjs-node is installed; run npm run setup:tensorflow");
  }
  load(chosen);
  if (!(await tf.setBackend("tensorflow"))) {
    throw unavailable(`${chosen.name} registered no backend that starts`);
  }
  const { isUsingGpuDevice, binding } = tf.backend() as TfjsNodeBackend;
  const seen = isUsingGpuDevice ? "cuda" : "cpu";
  const engine: Engine = {
    name: "tensorflow",
    device: seen,
    threads,
    version: `TensorFlow ${binding.TF_Version}`,
    why: `${chosen.name} loads, its TensorFlow ${binding.TF_Version} computes on ${seen}`,
    ...portable("tensorflow"),
  };
  if (device !== undefined && device !== seen) {
    engine.close();
    throw unavailable(
      `device ${device} cannot be used: TensorFlow takes ${seen} here; choose by CUDA_VISIBLE_DEVICES`,
    );
  }
  return engine;
}

function load({ name, path }: InstalledTensorflow): void {
  const require = createRequire(import.meta.url);
  // Node 23 took away a function that tfjs-node 4.22 calls (tfjs issue 8609).
  const legacy: { isNullOrUndefined?: (value: unknown) => boolean } = require("node:util");
  legacy.isNullOrUndefined ??= (value) => value === null || value === undefined;
  try {
    require(path);
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : util.inspect(error);
    throw unavailable(`${name} does not load: ${reason}`, error);
  }
}

function unavailable(message: string, cause?: unknown): EngineError {
  return new EngineError(message, { code: "engine-unavailable", cause });
}
