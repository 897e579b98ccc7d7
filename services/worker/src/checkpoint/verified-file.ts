/** One file of a checkpoint, opened only after its size, the hash of every byte and its header were found right. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import type { Manifest, ManifestFile, Range } from "@paddock/contract";
import { type DigestKind, digestOf } from "./digests.js";
import { FileContent, type Wanted } from "./file-content.js";
import { corrupt } from "./manifest.js";
import { pieceBytes, pieceReader, readBuffers } from "./pieces.js";
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
  /** `blocksAhead` buffers of `pieceBytes`; absent: new ones. */
  readonly blocks?: readonly Buffer[];
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
  const { wanted = [], part = "all", blocks = newBlocks(entry.bytes), onProgress } = options;
  const path = join(directory, entry.name);
  // A link could lead out of the folder.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW;
  const handle = await open(path, flags).catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException;
    const received = code === "ELOOP" ? "a symbolic link" : "no file";
    throw corrupt(path, `expected ${entry.bytes} bytes, received ${received}`, error);
  });
  try {
    const { size } = await handle.stat();
    if (size !== entry.bytes) {
      throw corrupt(path, `expected ${entry.bytes} bytes, received ${size}`);
    }
    const expected = part === "head" && entry.head ? entry.head : entry;
    const ghash = options.by === "ghash" && expected === entry ? entry.ghash : undefined;
    const kind = ghash === undefined ? "sha256" : "ghash";
    const content = new FileContent(path, size, wanted);
    const onBytes = (chunk: Buffer, at: number): void => {
      content.take(chunk, at);
      onProgress?.();
    };
    const received = await scan({ handle, path, bytes: expected.bytes, kind }, blocks, onBytes);
    const right = ghash ?? expected.sha256;
    if (received !== right) throw corrupt(path, `expected ${kind} ${right}, received ${received}`);
    const { header, ranges, extras } = content.finish();
    checkOrigin(path, header, manifest, entry);
    return fileOf(handle, { path, isWhole: expected === entry, header, ranges, extras });
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** @param bytes of the largest file that is to be read with them */
export function newBlocks(bytes: number): Buffer[] {
  return readBuffers(blocksAhead, bytes);
}

interface Scanned {
  readonly handle: FileHandle;
  readonly path: string;
  readonly bytes: number;
  readonly kind: DigestKind;
}

/** Reads, hashes and hands on the first `bytes`; returns their hash in lower-case hex. The reads run ahead. */
async function scan(
  { handle, path, bytes, kind }: Scanned,
  blocks: readonly Buffer[],
  onBytes: (chunk: Buffer, at: number) => void,
): Promise<string> {
  const digest = digestOf(kind);
  const count = Math.ceil(bytes / pieceBytes);
  const reader = await pieceReader(handle, bytes, blocks[0]);
  const reads: Promise<Buffer>[] = [];
  const start = (index: number): void => {
    if (index >= count) return;
    const length = Math.min(pieceBytes, bytes - index * pieceBytes);
    const read = reader.read(index, blocks[index % blocks.length] as Buffer, length);
    read.catch(() => undefined);
    reads.push(read);
  };
  for (let index = 0; index < blocks.length; index++) start(index);
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
      start(index + blocks.length);
    }
    return digest.hex();
  } finally {
    await Promise.allSettled(reads);
    await reader.close();
  }
}

function fileOf(handle: FileHandle, facts: Omit<VerifiedFile, "read" | "close">): VerifiedFile {
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
      await bytesAt(handle, path, position, bytes);
    },
    close: () => handle.close(),
  };
}

/** Fills `target` from `position` on and returns it. */
async function bytesAt<T extends Uint8Array>(
  handle: FileHandle,
  path: string,
  position: number,
  target: T,
): Promise<T> {
  for (let done = 0; done < target.byteLength; ) {
    const left = target.byteLength - done;
    const { bytesRead } = await handle.read(target, done, left, position + done);
    if (bytesRead === 0) {
      throw corrupt(path, `expected ${target.byteLength} bytes at ${position}, received ${done}`);
    }
    done += bytesRead;
  }
  return target;
}

/** A file of another step or worker under the right name and hash is a manifest put together wrongly. */
function checkOrigin(path: string, header: Header, manifest: Manifest, entry: ManifestFile): void {
  const { step, worker, workers } = header.metadata;
  const received = `step ${step}, worker ${worker} of ${workers}`;
  const expected = `step ${manifest.step}, worker ${entry.worker} of ${manifest.workers}`;
  if (received !== expected) throw corrupt(path, `expected ${expected}, received ${received}`);
}
