/** Damaged files of a checkpoint are written anew from their replicas. */
import { copyFile, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { type Manifest, type ManifestFile, PaddockError } from "@paddock/contract";
import { readManifest } from "./manifest.js";
import { openVerified } from "./verified-file.js";
import { diskError, replicaName, syncPath } from "./writer.js";

export interface Repair {
  readonly file: string;
  /** What was wrong with it. */
  readonly damage: string;
  /** Null: it is whole again. Otherwise why it is not: there is no replica, or that is damaged too. */
  readonly remains: string | null;
}

/**
 * Reads every byte of a checkpoint's files. What is damaged is replaced, if its replica has the hash that the manifest gives; nothing else
 * is touched. Errors: `not-found` and `checkpoint-corrupt` when the manifest itself is not to be believed, `disk-unavailable`.
 * @param sha256 of manifest.json, as the ledger has it; null: not checked
 */
export async function repairCheckpoint(
  directory: string,
  sha256: string | null,
): Promise<Repair[]> {
  const manifest = await readManifest(directory, sha256);
  const repairs: Repair[] = [];
  for (const entry of manifest.files) {
    const damage = await damageOf(directory, manifest, entry);
    if (damage === null) continue;
    const replica = { ...entry, name: replicaName(entry.name) };
    const remains = await damageOf(directory, manifest, replica);
    if (remains === null) {
      await replace(join(directory, entry.name), join(directory, replica.name), manifest.step);
    }
    repairs.push({ file: entry.name, damage, remains });
  }
  return repairs;
}

async function damageOf(
  directory: string,
  manifest: Manifest,
  entry: ManifestFile,
): Promise<string | null> {
  try {
    await (await openVerified(directory, manifest, entry)).close();
    return null;
  } catch (thrown) {
    const error = PaddockError.from(thrown);
    if (error.code !== "checkpoint-corrupt") throw error;
    return error.message;
  }
}

/** Complete and on disk, or as before. */
async function replace(path: string, source: string, step: number): Promise<void> {
  const temporary = `${path}.repair.tmp`;
  try {
    await copyFile(source, temporary);
    await syncPath(temporary);
    await rename(temporary, path);
    await syncPath(join(path, ".."));
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw diskError(path, step, error);
  }
}
