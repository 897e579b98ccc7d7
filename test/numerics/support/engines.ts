/** Runs a file's tests on every engine: wasm always, torch where its addon has been built. */
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, describe, test } from "vitest";

interface TestEngine {
  readonly name: string;
  use(): Promise<void>;
  /** Why it cannot be used here. */
  readonly missing?: string;
}

const wasm: TestEngine = {
  name: "wasm",
  async use() {
    await tf.setBackend("wasm");
  },
};

const engines = [wasm, await torch()];

/** `body` declares the tests once per engine. */
export function describeEngines(title: string, body: () => void): void {
  for (const { name, use, missing } of engines) {
    describe(`${title}, ${name}`, () => {
      if (missing) {
        test("the engine is not available here", (context) => context.skip(missing));
        return;
      }
      beforeAll(use);
      body();
    });
  }
}

async function torch(): Promise<TestEngine> {
  try {
    const { openEngine } = await import("@paddock/engine");
    await openEngine({ name: "torch", threads: 1 });
    return {
      name: "torch",
      async use() {
        await tf.setBackend("torch");
      },
    };
  } catch (error) {
    return { name: "torch", use: async () => {}, missing: String(error) };
  }
}
