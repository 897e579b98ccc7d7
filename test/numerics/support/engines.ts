/**
 * The engines that every numerics test runs on: wasm always, torch and tensorflow where they have been set up.
 * `reference` is TF.js's own JavaScript backend: slow, and never an engine of a run.
 */
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-backend-wasm";
import { type EngineName, type FlatMath, openEngine } from "@paddock/engine";
import * as tf from "@tensorflow/tfjs-core";

export interface TestEngine {
  readonly name: string;
  /** For `beforeEach`: makes the engine the active one, or skips the test and says why it cannot be used here. */
  use(context: { skip(reason: string): unknown }): Promise<void>;
  /** Its arithmetic on flat vectors, if it has its own. */
  readonly flat: FlatMath | null;
}

/** `describe.each(engines)("... on $name", ({ use }) => { beforeEach(use); ... })` */
export const engines: readonly TestEngine[] = [
  { name: "wasm", use: () => activate("wasm"), flat: null },
  await opened("torch"),
  await opened("tensorflow"),
];

/** Runs `work` on the reference backend and makes the one before active again. */
export async function onReference<T>(work: () => Promise<T> | T): Promise<T> {
  const before = tf.getBackend();
  await activate("cpu");
  try {
    return await work();
  } finally {
    await activate(before);
  }
}

async function activate(backend: string): Promise<void> {
  await tf.setBackend(backend);
}

async function opened(name: EngineName): Promise<TestEngine> {
  try {
    const { flat } = await openEngine({ name, threads: 1 });
    return { name, use: () => activate(name), flat };
  } catch (error) {
    return {
      name,
      flat: null,
      async use(context) {
        context.skip(`the ${name} engine is not available here: ${error}`);
      },
    };
  }
}
