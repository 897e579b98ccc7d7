/** The engines that every numerics test runs on: wasm always, torch where its addon has been built. */
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";

export interface TestEngine {
  readonly name: string;
  /** For `beforeEach`: makes the engine the active one, or skips the test and says why it cannot be used here. */
  use(context: { skip(reason: string): unknown }): Promise<void>;
}

/** `describe.each(engines)("... on $name", ({ use }) => { beforeEach(use); ... })` */
export const engines: readonly TestEngine[] = [
  { name: "wasm", use: () => activate("wasm") },
  await torch(),
];

async function activate(backend: string): Promise<void> {
  await tf.setBackend(backend);
}

async function torch(): Promise<TestEngine> {
  try {
    const { openEngine } = await import("@paddock/engine");
    await openEngine({ name: "torch", threads: 1 });
    return { name: "torch", use: () => activate("torch") };
  } catch (error) {
    return {
      name: "torch",
      async use(context) {
        context.skip(`the torch engine is not available here: ${error}`);
      },
    };
  }
}
