/** The `tensorflow` engine: tfjs-node-gpu or tfjs-node, where the user has installed one of them. */
import { createRequire } from "node:module";
import * as util from "node:util";
import * as tf from "@tensorflow/tfjs-core";
import type { Engine } from "./engine.js";
import { EngineError } from "./errors.js";
import { portable } from "./portable.js";

const packages = ["@tensorflow/tfjs-node-gpu", "@tensorflow/tfjs-node"] as const;

/** The package that would be used, or undefined. */
export function installedTensorflow(): string | undefined {
  const require = createRequire(import.meta.url);
  return packages.find((name) => {
    try {
      require.resolve(name);
      return true;
    } catch {
      return false;
    }
  });
}

/** The engine, made TF.js's backend. @throws EngineError `engine-unavailable`. */
export async function openTensorflow(threads: number): Promise<Engine> {
  const name = installedTensorflow();
  if (name === undefined) {
    throw new EngineError(
      "neither @tensorflow/tfjs-node-gpu nor @tensorflow/tfjs-node is installed; npm install one of them",
      { code: "engine-unavailable" },
    );
  }
  const library = await load(name);
  if (!(await tf.setBackend("tensorflow"))) {
    throw new EngineError(`${name} registered no backend that starts`, {
      code: "engine-unavailable",
    });
  }
  const backend = tf.backend() as tf.KernelBackend & { isUsingGpuDevice?: boolean };
  return {
    name: "tensorflow",
    device: backend.isUsingGpuDevice ? "gpu" : "cpu",
    threads,
    version: `${name} ${library.version?.["tfjs-node"] ?? "4"}`,
    why: `${name} is installed`,
    ...portable("tensorflow"),
  };
}

interface TfjsNode {
  readonly version?: Readonly<Record<string, string>>;
}

async function load(name: string): Promise<TfjsNode> {
  // Node 23 took away a function that tfjs-node 4.22 calls.
  const legacy: { isNullOrUndefined?: (value: unknown) => boolean } = createRequire(
    import.meta.url,
  )("node:util");
  legacy.isNullOrUndefined ??= (value) => value === null || value === undefined;
  try {
    return await import(name);
  } catch (error) {
    const reason = error instanceof Error ? error.message : util.inspect(error);
    throw new EngineError(`${name} does not load: ${reason}`, {
      code: "engine-unavailable",
      cause: error,
    });
  }
}
