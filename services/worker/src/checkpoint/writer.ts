/** Writes one worker's file of a checkpoint: complete and on disk under its final name, or not there at all. */
import { setImmediate as immediate } from "node:timers/promises";
import { invariant, type ManifestFile, PaddockError, type Range } from "@paddock/contract";
import {
  childOf,
  type PieceMemory,
  pieceBytes,
  storeOf,
} from "@paddock/service-kit/checkpoint-store";
import { failpoint } from "@paddock/service-kit/failpoints";
import { digestOf } from "./digests.js";
import { newPieceMemory } from "./memory.js";
import { encodeHeader } from "./safetensors.js";

export interface ShardEntry {
  /** "<kind>/<unit>", or anything else for values that are not sharded. Unique in the file. */
  readonly name: string;
  /** May lie on shared memory; must stay unchanged until `onCopied`. */
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
  /** Written by another worker than its own: the same bytes under another name. */
  readonly isReplica?: boolean;
}

/** As a manifest has it, but for the worker. */
export type WrittenFile = Omit<ManifestFile, "worker">;

export interface SaveOptions {
  /** Reused by later saves; absent: new memory. One save at a time. */
  readonly memory?: PieceMemory;
  /** The entries' data have been copied: they may change from now on. */
  readonly onCopied?: () => void;
  /** Now and then, while bytes move. */
  readonly onProgress?: () => void;
}

/**
 * Writes name, range and values: into a folder under a temporary name, then fsync, rename, fsync of the folder. Nothing but the state is
 * in the file: a late writer of an older generation that replaces it replaces it by the same bytes. The data are copied first, and
 * hashed and written from the copy; both at the same time.
 * Throws `disk-unavailable` when the disk refuses.
 */
export async function writeShardFile(
  shard: ShardFile,
  options: SaveOptions = {},
): Promise<WrittenFile> {
  checkEntries(shard.entries);
  const { directory, worker, workers } = shard;
  const own = `shard-${worker}-of-${workers}.safetensors`;
  const name = shard.isReplica ? replicaName(own) : own;
  const path = childOf(directory, name);
  try {
    return { name, ...(await writeFile(path, shard, options)) };
  } catch (error) {
    throw writeError(path, shard.step, error);
  }
}

/** Where the replica of a file lies. */
export function replicaName(name: string): string {
  return name.replace(/^shard-/, "replica-");
}

function checkEntries(entries: readonly ShardEntry[]): void {
  const names = new Set(entries.map(({ name }) => name));
  invariant(names.size === entries.length, "every entry of a shard file has its own name");
  for (const { name, data, range } of entries) {
    const fits = !range || range.end - range.start === data.length;
    invariant(fits, `${name} holds ${data.length} values for [${range?.start}, ${range?.end})`);
  }
}

async function writeFile(
  path: string,
  shard: ShardFile,
  { memory = newPieceMemory(), onCopied, onProgress }: SaveOptions,
): Promise<Omit<WrittenFile, "name">> {
  const { sources, bytes, headBytes } = contentOf(shard);
  const pieces = Math.ceil(bytes / pieceBytes);
  memory.reserve(pieces);
  const lengthOf = (index: number): number => Math.min(pieceBytes, bytes - index * pieceBytes);
  const fill = copier(sources);
  fill(memory.piece(0).subarray(0, lengthOf(0)));
  const store = storeOf(path);
  const lanes = store.writesAtOnce;
  const opening = store.create(path, { bytes, generation: shard.generation }, memory.piece(0));
  opening.catch(() => undefined);
  const writing: Promise<unknown>[] = Array(lanes).fill(opening);
  try {
    for (let index = 1; index < pieces; index++) {
      const piece = memory.piece(index);
      fill(piece.subarray(0, lengthOf(index)));
      const before = writing[index % lanes];
      const next = Promise.all([opening, before]).then(async ([file]) => {
        await file.write(index, piece, lengthOf(index));
        onProgress?.();
      });
      next.catch(() => undefined);
      writing[index % lanes] = next;
      await immediate();
    }
    onCopied?.();
    await failpoint("worker.checkpoint.half");
    const finished = Promise.all(writing).then(async () => (await opening).finish());
    finished.catch(() => undefined);
    const digests = await hashPieces(pieces, (index) =>
      memory.piece(index).subarray(0, lengthOf(index)),
    );
    await finished;
    const head = memory.piece(0).subarray(0, headBytes);
    return { bytes, ...digests, ...(headBytes <= lengthOf(0) ? { head: headOf(head) } : {}) };
  } finally {
    await Promise.allSettled(writing);
    await opening.then(
      (file) => file.close(),
      () => undefined,
    );
  }
}

async function hashPieces(
  pieces: number,
  piece: (index: number) => Buffer,
): Promise<Required<Pick<WrittenFile, "sha256" | "ghash">>> {
  const [sha256, ghash] = [digestOf("sha256"), digestOf("ghash")];
  for (let index = 0; index < pieces; index++) {
    sha256.update(piece(index));
    ghash.update(piece(index));
    // So that the next write is started.
    await immediate();
  }
  return { sha256: sha256.hex(), ghash: ghash.hex() };
}

function headOf(bytes: Uint8Array): { bytes: number; sha256: string } {
  const sha256 = digestOf("sha256");
  sha256.update(bytes);
  return { bytes: bytes.length, sha256: sha256.hex() };
}

/** What lies in the file one after the other: values that are not sharded come first, so that they can be read without the shards. */
function contentOf(shard: ShardFile) {
  const entries = shard.entries.toSorted((a, b) => Number(!!a.range) - Number(!!b.range));
  const header = headerOf({ ...shard, entries });
  const size = (list: readonly ShardEntry[]): number =>
    list.reduce((sum, { data }) => sum + data.byteLength, 0);
  const headBytes = header.length + size(entries.filter(({ range }) => !range));
  const sources = [{ data: header }, ...entries];
  return { sources, bytes: header.length + size(entries), headBytes };
}

type Source = { readonly data: Float32Array | Uint8Array };

/** Fills one target after the other with the bytes of the sources. */
function copier(sources: readonly Source[]): (target: Buffer) => void {
  const rest = sources.values();
  let current: Buffer = Buffer.alloc(0);
  return (target) => {
    for (let done = 0; done < target.length; ) {
      if (current.length === 0) {
        const { data } = rest.next().value as Source;
        current = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
        continue;
      }
      const count = current.copy(target, done);
      current = current.subarray(count);
      done += count;
    }
  };
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

/** `disk-unavailable`, with path, reason and remedy. */
export function writeError(path: string, step: number, error: unknown): PaddockError {
  if (error instanceof PaddockError) {
    const message = `checkpoint of step ${step}: ${error.message}; the last checkpoint is untouched`;
    return new PaddockError(error.code, message, { cause: error });
  }
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
