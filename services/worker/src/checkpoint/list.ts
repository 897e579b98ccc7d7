/** The checkpoints of a run directory. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { readManifest } from "./manifest.js";

export interface ListedCheckpoint {
  /** Committed steps that it holds. */
  readonly step: number;
  /** `<run directory>/checkpoints/<step>` */
  readonly directory: string;
}

/**
 * The complete checkpoints among the folders `<root>/<step>`, newest first: those with a manifest whose files are all there
 * in full size. Contents are verified when one is opened. Empty when there is no such folder.
 */
export async function listCheckpoints(root: string): Promise<ListedCheckpoint[]> {
  const names = await readdir(root).catch(() => []);
  const listed = names
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ step: Number(name), directory: join(root, name) }))
    .sort((a, b) => b.step - a.step);
  const complete = await Promise.all(listed.map(isComplete));
  return listed.filter((_, i) => complete[i]);
}

async function isComplete({ step, directory }: ListedCheckpoint): Promise<boolean> {
  try {
    const manifest = await readManifest(directory, null);
    const sizes = await Promise.all(
      manifest.files.map(async ({ name }) => (await stat(join(directory, name))).size),
    );
    return manifest.step === step && manifest.files.every(({ bytes }, i) => bytes === sizes[i]);
  } catch {
    return false;
  }
}
