/** Writes one worker's file of a checkpoint: complete and on disk under its final name, or not there at all. */
import { createHash } from "node:crypto";
import { mkdir, open, readdir, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { PaddockError, type Range } from "@paddock/contract";
import { encodeHeader } from "./safetensors.js";

export interface ShardEntry {
  /** "<kind>/<unit>", or anything else for values that are not sharded. */
  readonly name: string;
  readonly data: Float32Array;
  /** The elements of the unit's vector that `data` holds. Absent: not sharded. */
  readonly range?: Range;
}

export interface ShardFile {
  readonly directory: string;
  /** Committed steps that the checkpoint holds. */
  readonly step: number;
  readonly generation: number;
  readonly worker: number;
  readonly workers: number;
  readonly entries: readonly ShardEntry[];
}

export interface WrittenFile {
  readonly name: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

/** Large enough for full disk speed, small enough that hashing never holds the event loop for more than a few milliseconds. */
const pieceBytes = 4 * 2 ** 20;

/** Name, range and values under a temporary name, fsync, rename, fsync of the folder. `disk-unavailable` when the disk refuses. */
export async function writeShardFile(shard: ShardFile): Promise<WrittenFile> {
  const name = `shard-${shard.worker}-of-${shard.workers}.safetensors`;
  const temporary = join(shard.directory, `.${name}.g${shard.generation}.${process.pid}.tmp`);
  try {
    await mkdir(shard.directory, { recursive: true });
    await removeLeftovers(shard.directory, name);
    const { bytes, sha256 } = await writeSynced(temporary, shard);
    await rename(temporary, join(shard.directory, name));
    await syncDirectory(shard.directory);
    return { name, bytes, sha256 };
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw refused(join(shard.directory, name), shard.step, error);
  }
}

function refused(path: string, step: number, cause: unknown): PaddockError {
  const received = cause instanceof Error ? cause.message : String(cause);
  return new PaddockError(
    "disk-unavailable",
    `checkpoint of step ${step}: expected to write ${path}, received: ${received}; free space or check permissions, the last checkpoint is untouched`,
    { cause },
  );
}

async function writeSynced(
  path: string,
  shard: ShardFile,
): Promise<{ bytes: number; sha256: string }> {
  const { step, generation, worker, workers, entries } = shard;
  const shapes = new Map(
    entries.map(({ name, data }) => [name, { dtype: "F32", shape: [data.length] } as const]),
  );
  const ranges = Object.fromEntries(
    entries.flatMap(({ name, range }) => (range ? [[name, range]] : [])),
  );
  const facts = { format: "paddock-shard", step, generation, worker, workers };
  const metadata = Object.fromEntries(
    Object.entries(facts).map(([key, value]) => [key, String(value)]),
  );
  const header = encodeHeader(shapes, { ...metadata, ranges: JSON.stringify(ranges) });
  const hash = createHash("sha256");
  let bytes = 0;
  const file = await open(path, "w", 0o644);
  try {
    const write = async (piece: Uint8Array): Promise<void> => {
      hash.update(piece);
      bytes += piece.byteLength;
      for (let done = 0; done < piece.byteLength; ) {
        done += (await file.write(piece, done, piece.byteLength - done)).bytesWritten;
      }
    };
    await write(header);
    for (const { data } of entries) {
      const all = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      for (let start = 0; start < all.byteLength; start += pieceBytes) {
        await write(all.subarray(start, start + pieceBytes));
      }
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return { bytes, sha256: hash.digest("hex") };
}

/** Temporary files of writers that died. */
async function removeLeftovers(directory: string, name: string): Promise<void> {
  for (const found of await readdir(directory)) {
    if (found.startsWith(`.${name}.`)) await unlink(join(directory, found)).catch(() => undefined);
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
