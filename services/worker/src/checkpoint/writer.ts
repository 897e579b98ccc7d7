/** Writes one worker's file of a checkpoint: complete and on disk under its final name, or not there at all. */

import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { invariant, PaddockError, type Range } from "@paddock/contract";
import { failpoint } from "@paddock/service-kit/failpoints";
import { encodeHeader } from "./safetensors.js";

export interface ShardEntry {
  /** "<kind>/<unit>", or anything else for values that are not sharded. Unique in the file. */
  readonly name: string;
  /** May lie on shared memory; must stay unchanged until the file is written. */
  readonly data: Float32Array;
  /** The elements of the unit's vector that `data` holds. Absent: not sharded. */
  readonly range?: Range;
}

export interface ShardFile {
  /** `checkpoints/<step>`; made if it is missing. */
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

/** Large enough for the disk; hashing so many bytes takes a few milliseconds of the checkpoint thread. */
const pieceBytes = 4 * 2 ** 20;

/**
 * Writes name, range and values under a temporary name, then fsync, rename, fsync of the folder. Nothing but the state is
 * in the file: a late writer of an older generation that replaces it replaces it by the same bytes.
 * Throws `disk-unavailable` when the disk refuses.
 */
export async function writeShardFile(shard: ShardFile): Promise<WrittenFile> {
  checkEntries(shard.entries);
  const { directory, generation, worker, workers } = shard;
  const name = `shard-${worker}-of-${workers}.safetensors`;
  const temporary = join(directory, `.${name}.g${generation}.${process.pid}.tmp`);
  try {
    await mkdir(directory, { recursive: true });
    await removeLeftovers(directory, generation);
    const { bytes, sha256 } = await writeSynced(temporary, shard);
    await failpoint("worker.checkpoint.synced");
    await rename(temporary, join(directory, name));
    await failpoint("worker.checkpoint.renamed");
    await syncDirectory(directory);
    return { name, bytes, sha256 };
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw diskError(join(directory, name), shard.step, error);
  }
}

function checkEntries(entries: readonly ShardEntry[]): void {
  const names = new Set(entries.map(({ name }) => name));
  invariant(names.size === entries.length, "every entry of a shard file has its own name");
  for (const { name, data, range } of entries) {
    const fits = !range || range.end - range.start === data.length;
    invariant(fits, `${name} holds ${data.length} values for [${range?.start}, ${range?.end})`);
  }
}

async function writeSynced(
  path: string,
  shard: ShardFile,
): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  const file = await open(path, "w", 0o644);
  try {
    const write = async (data: Uint8Array): Promise<void> => {
      for (let start = 0; start < data.byteLength; start += pieceBytes) {
        const piece = data.subarray(start, start + pieceBytes);
        // Hashed while it is being written.
        const writing = writeAll(file, piece);
        hash.update(piece);
        await writing;
        bytes += piece.byteLength;
      }
    };
    await write(headerOf(shard));
    for (const [i, { data }] of shard.entries.entries()) {
      if (i === shard.entries.length >> 1) await failpoint("worker.checkpoint.half");
      await write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return { bytes, sha256: hash.digest("hex") };
}

function headerOf({ step, worker, workers, entries }: ShardFile): Buffer {
  const shapes = new Map(
    entries.map(({ name, data }) => [name, { dtype: "F32", shape: [data.length] } as const]),
  );
  const ranges = Object.fromEntries(
    entries.flatMap(({ name, range }) => (range ? [[name, range]] : [])),
  );
  return encodeHeader(shapes, {
    format: "paddock-shard",
    step: String(step),
    worker: String(worker),
    workers: String(workers),
    ranges: JSON.stringify(ranges),
  });
}

async function writeAll(file: FileHandle, piece: Uint8Array): Promise<void> {
  for (let done = 0; done < piece.byteLength; ) {
    done += (await file.write(piece, done, piece.byteLength - done)).bytesWritten;
  }
}

/** Temporary files of older generations: their writers are dead, or too late. Those of newer ones are not ours to touch. */
async function removeLeftovers(directory: string, generation: number): Promise<void> {
  for (const found of await readdir(directory)) {
    const written = /^\.shard-.*\.g(\d+)\.\d+\.tmp$/.exec(found)?.[1];
    if (written === undefined || Number(written) >= generation) continue;
    await unlink(join(directory, found)).catch(() => undefined);
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

function diskError(path: string, step: number, error: unknown): PaddockError {
  const { code, message = String(error) } = error as NodeJS.ErrnoException;
  const remedy =
    code === "ENOSPC" || code === "EDQUOT"
      ? "free some space"
      : "check that the run directory exists and may be written";
  return new PaddockError(
    "disk-unavailable",
    `checkpoint of step ${step}: expected to write ${path}, received: ${message}; ${remedy}, then resume: the last checkpoint is untouched`,
    { cause: error },
  );
}
