/** Opens `torch` for a test file, or says why its tests are skipped. */
import * as tf from "@tensorflow/tfjs-core";
import type { Engine } from "../engine.js";
import { loadNative } from "../native.js";
import { openTorch } from "../torch/open.js";

const load = loadNative();

/** Undefined where the addon is built; else the reason for skipping. */
export const skipReason = load.kind === "absent" ? load.why : undefined;

/** Where the tests run: `cpu`, or `cuda` on a machine that has a GPU. */
// biome-ignore lint/style/noProcessEnv: which device the tests use is the caller's choice
const testDevice = process.env["PADDOCK_TEST_DEVICE"] ?? "cpu";

/** The engine on `testDevice`, or undefined where the addon is not built. */
export async function torchForTests(threads = 1): Promise<Engine | undefined> {
  if (load.kind === "absent") return undefined;
  tf.env().set("PROD", true);
  return await openTorch({ threads, device: testDevice, vectors: "library" });
}
