/** `checkpoints/<step>/`: manifests are written here, and old checkpoints deleted. Workers write the shards. */

import { createHash } from "node:crypto";
import { lstat, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Manifest, type ManifestFile, PaddockError } from "@paddock/contract";
import { failpoint } from "@paddock/service-kit/failpoints";
import { diskError, syncFolder, writeDurably } from "./files.js";

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
  /** Absolute path of the folder of `step`. */
  pathOf(step: number): string;
}

/** Makes `<runDir>/checkpoints`. */
export async function openCheckpoints(runDir: string): Promise<Checkpoints> {
  const root = join(runDir, "checkpoints");
  await mkdir(root, { recursive: true }).catch((error) => {
    throw diskError(error, `make ${root}`);
  });
  const pathOf = (step: number): string => join(root, String(step));
  return {
    pathOf,
    async commit(manifest) {
      const folder = pathOf(manifest.step);
      await checkFiles(folder, manifest.files);
      const text = `${JSON.stringify(manifest, null, 2)}\n`;
      await writeDurably(join(folder, "manifest.json"), text);
      await syncFolder(root);
      return sha256Of(text);
    },
    async keep(steps) {
      const kept = new Set(steps.map(String));
      const names = await readdir(root);
      for (const name of names.filter((known) => /^\d+$/.test(known) && !kept.has(known))) {
        await failpoint("coordinator.checkpoint.deleting");
        await rm(join(root, name), { recursive: true, force: true });
      }
    },
    async verify(step, sha256) {
      const path = join(pathOf(step), "manifest.json");
      const text = await readFile(path, "utf8").catch((error) => {
        throw corrupt(path, "a manifest", String(error.code), error);
      });
      const actual = sha256Of(text);
      if (actual !== sha256) throw corrupt(path, `sha256 ${sha256}`, actual);
      await checkFiles(pathOf(step), (JSON.parse(text) as Manifest).files);
    },
  };
}

async function checkFiles(folder: string, files: readonly ManifestFile[]): Promise<void> {
  for (const { name, bytes } of files) {
    const path = join(folder, name);
    if (!/^\w[\w.-]{0,127}$/.test(name)) throw corrupt(path, "a plain file name", name);
    // Not its target's: a link could lead out of the folder.
    const found = await lstat(path).catch((error) => {
      throw corrupt(path, `${bytes} bytes`, String(error.code), error);
    });
    if (!found.isFile()) throw corrupt(path, "a file", "something else");
    const { size } = found;
    if (size !== bytes) throw corrupt(path, `${bytes} bytes`, `${size} bytes`);
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
