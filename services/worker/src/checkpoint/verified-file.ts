/** One file of a checkpoint, opened only after its size, the hash of every byte and its header were found right. */
import { type Manifest, type ManifestFile, PaddockError, type Range } from "@paddock/contract";
import {
  childOf,
  type PieceMemory,
  pieceBytes,
  type ReadBuffers,
  readBuffers,
  type StoredFile,
  storeOf,
} from "@paddock/service-kit/checkpoint-store";
import { type DigestKind, digestOf } from "./digests.js";
import { FileContent, type Wanted } from "./file-content.js";
import { corrupt } from "./manifest.js";
import { newPieceMemory } from "./memory.js";
import type { Header } from "./safetensors.js";

/** Blocks of one file in memory: one is hashed while the next is read. A third one made loads slower where cores are few. */
const blocksAhead = 2;
/** Hashed and then copied while it is in the core's cache. */
const chunkBytes = 2 ** 18;

export interface VerifiedFile {
  readonly path: string;
  /** It is a replica: what was wrong with the file itself. */
  readonly damage?: string;
  /** Every byte was read and found right, not only those of the head. */
  readonly isWhole: boolean;
  readonly header: Header;
  /** Ranges of units' vectors that the sharded tensors hold, by tensor name. */
  readonly ranges: ReadonlyMap<string, Range>;
  /** What is not sharded. */
  readonly extras: ReadonlyMap<string, Float32Array>;
  /** Fills `target` with values of an F32 tensor, from its element `first` on. */
  read(tensor: string, first: number, target: Float32Array): Promise<void>;
  close(): Promise<void>;
}

export interface VerifyOptions {
  /** Filled while the file is read: not to be used before it was found right. */
  readonly wanted?: readonly Wanted[];
  /** head: only header and extras, by the hash that the manifest has of them. */
  readonly part?: "all" | "head";
  /** How the bytes of a whole file are known again: ghash where the manifest has it. Absent: sha256. */
  readonly by?: DigestKind;
  /** As the system remembers the file, unless the disk is faster; absent: as it lies on the disk. */
  readonly mayBeCached?: boolean;
  /** `blocksAhead` buffers of `pieceBytes`; absent: new ones. */
  readonly blocks?: ReadBuffers;
  /** Often, while bytes move. */
  readonly onProgress?: () => void;
}

/** Hashed in one pass over the bytes. The caller closes it. Throws `checkpoint-corrupt`. */
export async function openVerified(
  directory: string,
  manifest: Manifest,
  entry: ManifestFile,
  options: VerifyOptions = {},
): Promise<VerifiedFile> {
  const { wanted = [], part = "all", mayBeCached = false, onProgress } = options;
  const { blocks = newBlocks(newPieceMemory(), 0, entry.bytes) } = options;
  const path = childOf(directory, entry.name);
  const file = await storeOf(directory)
    .open(path)
    .catch((error: unknown) => {
      const { code, message } = PaddockError.from(error);
      if (code !== "not-found") throw error;
      throw corrupt(path, `expected ${entry.bytes} bytes, received ${message}`, error);
    });
  try {
    const { bytes } = file;
    if (bytes !== entry.bytes) {
      throw corrupt(path, `expected ${entry.bytes} bytes, received ${bytes}`);
    }
    const expected = part === "head" && entry.head ? entry.head : entry;
    const ghash = options.by === "ghash" && expected === entry ? entry.ghash : undefined;
    const kind = ghash === undefined ? "sha256" : "ghash";
    const content = new FileContent(path, bytes, wanted);
    const onBytes = (chunk: Buffer, at: number): void => {
      content.take(chunk, at);
      onProgress?.();
    };
    const received = await scan(
      { file, path, bytes: expected.bytes, kind, mayBeCached },
      blocks,
      onBytes,
    );
    const right = ghash ?? expected.sha256;
    if (received !== right) throw corrupt(path, `expected ${kind} ${right}, received ${received}`);
    const { header, ranges, extras } = content.finish();
    checkOrigin(path, header, manifest, entry);
    return fileOf(file, { path, isWhole: expected === entry, header, ranges, extras });
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * For the files of one lane, read one after the other.
 * @param memory that lanes share: each has its own part of it
 * @param bytes of the largest file that is to be read with them
 */
export function newBlocks(memory: PieceMemory, lane: number, bytes: number): ReadBuffers {
  return readBuffers(memory, { first: lane * blocksAhead, count: blocksAhead, bytes });
}

interface Scanned {
  readonly file: StoredFile;
  readonly path: string;
  readonly bytes: number;
  readonly kind: DigestKind;
  readonly mayBeCached: boolean;
}

/** Reads, hashes and hands on the first `bytes`; returns their hash in lower-case hex. The reads run ahead. */
async function scan(
  { file, path, bytes, kind, mayBeCached }: Scanned,
  { buffers, areHuge }: ReadBuffers,
  onBytes: (chunk: Buffer, at: number) => void,
): Promise<string> {
  const digest = digestOf(kind);
  const count = Math.ceil(bytes / pieceBytes);
  // Into huge pages the disk reads faster than the system copies.
  const reader = await file.pieces(bytes, buffers[0], mayBeCached && !areHuge);
  const reads: Promise<Buffer>[] = [];
  const start = (index: number): void => {
    if (index >= count) return;
    const length = Math.min(pieceBytes, bytes - index * pieceBytes);
    const read = reader.read(index, buffers[index % buffers.length] as Buffer, length);
    read.catch(() => undefined);
    reads.push(read);
  };
  for (let index = 0; index < buffers.length; index++) start(index);
  try {
    for (let index = 0; index < count; index++) {
      const block = (await reads[index]) as Buffer;
      const at = index * pieceBytes;
      const expected = Math.min(pieceBytes, bytes - at);
      if (block.length !== expected) {
        throw corrupt(path, `expected ${expected} bytes at ${at}, received ${block.length}`);
      }
      for (let done = 0; done < block.length; done += chunkBytes) {
        const chunk = block.subarray(done, done + chunkBytes);
        digest.update(chunk);
        onBytes(chunk, at + done);
      }
      start(index + buffers.length);
    }
    return digest.hex();
  } finally {
    await Promise.allSettled(reads);
    await reader.close();
  }
}

function fileOf(file: StoredFile, facts: Omit<VerifiedFile, "read" | "close">): VerifiedFile {
  const { path, header } = facts;
  return {
    ...facts,
    async read(tensor, first, target) {
      const info = header.tensors.get(tensor);
      if (info?.dtype !== "F32") {
        throw corrupt(path, `${tensor}: expected values of F32, received ${info?.dtype ?? "none"}`);
      }
      const position = header.dataStart + info.dataOffsets[0] + 4 * first;
      const bytes = new Uint8Array(target.buffer, target.byteOffset, target.byteLength);
      await bytesAt(file, path, position, bytes);
    },
    close: () => file.close(),
  };
}

/** Fills `target` from `position` on. */
async function bytesAt(
  file: StoredFile,
  path: string,
  position: number,
  target: Uint8Array,
): Promise<void> {
  for (let done = 0; done < target.byteLength; ) {
    const bytesRead = await file.read(target.subarray(done), position + done);
    if (bytesRead === 0) {
      throw corrupt(path, `expected ${target.byteLength} bytes at ${position}, received ${done}`);
    }
    done += bytesRead;
  }
}

/** A file of another step or worker under the right name and hash is a manifest put together wrongly. */
function checkOrigin(path: string, header: Header, manifest: Manifest, entry: ManifestFile): void {
  const { step, worker, workers } = header.metadata;
  const received = `step ${step}, worker ${worker} of ${workers}`;
  const expected = `step ${manifest.step}, worker ${entry.worker} of ${manifest.workers}`;
  if (received !== expected) throw corrupt(path, `expected ${expected}, received ${received}`);
}
