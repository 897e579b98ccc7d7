/** The checkpoints of a run. */
import { PaddockError } from "@paddock/contract";
import { childOf, storeOf } from "@paddock/service-kit/checkpoint-store";
import { readManifest } from "./manifest.js";

export interface ListedCheckpoint {
  /** Committed steps that it holds. */
  readonly step: number;
  /** `<root>/<step>` */
  readonly directory: string;
}

/**
 * The complete checkpoints among the folders `<root>/<step>`, newest first: those with a manifest whose files are all there
 * in full size. Contents are verified when one is opened. Empty when there is no such folder.
 */
export async function listCheckpoints(root: string): Promise<ListedCheckpoint[]> {
  const steps = await storeOf(root).steps(root);
  const listed = steps.map((step) => ({ step, directory: childOf(root, String(step)) }));
  const complete = await Promise.all(listed.map(isComplete));
  return listed.filter((_, i) => complete[i]);
}

async function isComplete({ step, directory }: ListedCheckpoint): Promise<boolean> {
  try {
    const manifest = await readManifest(directory, null);
    const sizes = await storeOf(directory).sizes(directory);
    return manifest.step === step && manifest.files.every((f) => f.bytes === sizes.get(f.name));
  } catch (thrown) {
    // Storage that cannot be asked is no answer.
    if (PaddockError.from(thrown).code === "disk-unavailable") throw thrown;
    return false;
  }
}
