/** `<root>/<step>/`: manifests are written here, and old checkpoints deleted. Workers write the shards. */

import { createHash } from "node:crypto";
import { type Manifest, type ManifestFile, PaddockError } from "@paddock/contract";
import { childOf, storeOf } from "@paddock/service-kit/checkpoint-store";
import { failpoint } from "@paddock/service-kit/failpoints";

export interface Checkpoints {
  /**
   * Writes manifest.json after checking that every file is there in full size; then the checkpoint is durable.
   * Returns the manifest's sha256 in lower-case hex. `checkpoint-corrupt` when a file is missing or has another size.
   */
  commit(manifest: Manifest): Promise<string>;
  /** Deletes every checkpoint, finished or not, but those of `steps`. */
  keep(steps: readonly number[]): Promise<void>;
  /** `checkpoint-corrupt` unless the manifest at `step` has that sha256 and its files are there in full size. */
  verify(step: number, sha256: string): Promise<void>;
  /** The place of `step`: an absolute path, or a location in S3-compatible storage. */
  pathOf(step: number): string;
}

/** A manifest of a thousand workers and a thousand units is half a megabyte. */
export const maxManifestBytes = 16 * 2 ** 20;

/** @param root where the run's checkpoints lie: a folder, or a place in S3-compatible storage */
export function openCheckpoints(root: string): Checkpoints {
  const store = storeOf(root);
  const pathOf = (step: number): string => childOf(root, String(step));
  const checkFiles = async (folder: string, files: readonly ManifestFile[]): Promise<void> =>
    compareSizes(folder, files, await store.sizes(folder));
  return {
    pathOf,
    async commit(manifest) {
      const folder = pathOf(manifest.step);
      await checkFiles(folder, manifest.files);
      const text = `${JSON.stringify(manifest, null, 2)}\n`;
      await store.writeText(childOf(folder, "manifest.json"), text);
      // A replica may still be on its way. What stays costs space and nothing else.
      await store
        .removeUnfinished(folder, (name) => name.startsWith("shard-"))
        .catch(() => undefined);
      return sha256Of(text);
    },
    async keep(steps) {
      for (const step of await store.steps(root)) {
        if (steps.includes(step)) continue;
        await failpoint("coordinator.checkpoint.deleting");
        await store.remove(pathOf(step));
      }
    },
    async verify(step, sha256) {
      const path = childOf(pathOf(step), "manifest.json");
      const text = await store.readText(path, maxManifestBytes).catch((thrown) => {
        const { code, message } = PaddockError.from(thrown);
        throw code === "not-found" ? corrupt(path, "a manifest", message, thrown) : thrown;
      });
      const actual = sha256Of(text);
      if (actual !== sha256) throw corrupt(path, `sha256 ${sha256}`, actual);
      await checkFiles(pathOf(step), (JSON.parse(text) as Manifest).files);
    },
  };
}

function compareSizes(
  folder: string,
  files: readonly ManifestFile[],
  sizes: ReadonlyMap<string, number | null>,
): void {
  for (const { name, bytes } of files) {
    const path = childOf(folder, name);
    if (!/^\w[\w.-]{0,127}$/.test(name)) throw corrupt(path, "a plain file name", name);
    const found = sizes.get(name);
    if (found === undefined) throw corrupt(path, `${bytes} bytes`, "no file");
    if (found === null) throw corrupt(path, "a file", "something else");
    if (found !== bytes) throw corrupt(path, `${bytes} bytes`, `${found} bytes`);
  }
}

function corrupt(path: string, expected: string, received: string, cause?: unknown): PaddockError {
  return new PaddockError(
    "checkpoint-corrupt",
    `${path}: expected ${expected}, received ${received}; restore the checkpoint from a copy, or start anew in another run directory (do all roles see the same run directory?)`,
    { cause },
  );
}

function sha256Of(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
