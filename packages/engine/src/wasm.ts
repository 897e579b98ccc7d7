/** The `wasm` engine: TF.js's own WebAssembly backend, npm alone, one thread. Correct and slow. */
import { createRequire } from "node:module";
import * as path from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import type { Engine } from "./engine.js";
import { EngineError } from "./errors.js";
import { portable } from "./portable.js";

/** The engine, made TF.js's backend. @throws EngineError `engine-unavailable` if it does not start. */
export async function openWasm(): Promise<Engine> {
  const wasm = await import("@tensorflow/tfjs-backend-wasm");
  const entry = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  wasm.setWasmPaths(`${path.dirname(entry)}/`);
  wasm.setThreadsCount(1);
  if (!(await tf.setBackend("wasm"))) {
    throw new EngineError("TF.js's wasm backend did not start", { code: "engine-unavailable" });
  }
  return {
    name: "wasm",
    device: "cpu",
    threads: 1,
    version: `tfjs-backend-wasm ${wasm.version_wasm}`,
    why: "it needs nothing but npm packages",
    ...portable("wasm"),
  };
}
