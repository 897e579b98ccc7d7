/** Damaged files of a checkpoint are written anew from their replicas. */
import { createHash } from "node:crypto";
import { type Manifest, type ManifestFile, PaddockError } from "@paddock/contract";
import { childOf, pieceBytes, storeOf } from "@paddock/service-kit/checkpoint-store";
import { corrupt, readManifest } from "./manifest.js";
import { newPieceMemory } from "./memory.js";
import { openVerified } from "./verified-file.js";
import { replicaName, writeError } from "./writer.js";

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
      await replace(directory, entry, replica.name).catch((error) => {
        throw writeError(childOf(directory, entry.name), manifest.step, error);
      });
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

/** Complete and durable, or as before. */
async function replace(directory: string, entry: ManifestFile, source: string): Promise<void> {
  const { name, bytes, sha256 } = entry;
  const store = storeOf(directory);
  const from = await store.open(childOf(directory, source));
  try {
    const memory = newPieceMemory();
    memory.reserve(2);
    const [first, buffer] = [memory.piece(0), memory.piece(1)];
    const pieces = await from.pieces(bytes, first);
    const hash = createHash("sha256");
    const read = async (index: number, into: Buffer): Promise<number> => {
      const length = Math.min(pieceBytes, bytes - index * pieceBytes);
      const piece = await pieces.read(index, into, length);
      hash.update(piece);
      return piece.length;
    };
    await read(0, first);
    // Generation 0: nobody's files are older.
    const to = await store.create(childOf(directory, name), { bytes, generation: 0 }, first);
    try {
      for (let index = 1; index * pieceBytes < bytes; index++) {
        await to.write(index, buffer, await read(index, buffer));
      }
      const received = hash.digest("hex");
      if (received !== sha256)
        throw corrupt(source, `expected sha256 ${sha256}, received ${received}`);
      await to.finish();
    } finally {
      await pieces.close();
      await to.close();
    }
  } finally {
    await from.close();
  }
}
