/** Files in equal pieces, written past the page cache and read past it or through it. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { isLarge, pieceBytes } from "./piece-memory.js";

/** What every file system that takes O_DIRECT is content with: addresses, lengths and positions are multiples of it. */
const blockBytes = 4096;
const cachedReadBytes = 2 ** 20;

/** Reads of whole pieces of a file, in order, some of them ahead. */
export interface PieceReader {
  /** The first `length` bytes of the piece, in `buffer`; fewer at the end of the file. */
  read(index: number, buffer: Buffer, length: number): Promise<Buffer>;
  close(): Promise<void>;
}

/**
 * Large files are read beside the page cache where their file system takes that, unless they may be cached.
 * @param handle stays the caller's, and must stay open
 * @param bytes that are to be read of it
 * @param buffer one of those that will be read into
 * @param mayBeCached as the system remembers them; else as they lie on the disk
 */
export async function pieceReader(
  handle: FileHandle,
  bytes: number,
  buffer: Buffer | undefined,
  mayBeCached = false,
): Promise<PieceReader> {
  const isDirect = buffer && isLarge(bytes) && !mayBeCached;
  const direct = isDirect ? await openDirect(handle, buffer) : undefined;
  const readCached = cachedReads(handle);
  return {
    async read(index, buffer, length) {
      const done = direct
        ? await readDirect(direct, index, buffer, length)
        : await readCached(index, buffer, length);
      return buffer.subarray(0, Math.min(done, length));
    },
    close: async () => await direct?.close(),
  };
}

/** The bytes of the piece that were read. Whole blocks, as O_DIRECT wants it. */
async function readDirect(
  handle: FileHandle,
  index: number,
  buffer: Buffer,
  length: number,
): Promise<number> {
  const end = Math.ceil(length / blockBytes) * blockBytes;
  let done = 0;
  while (done < length) {
    // A short read in the middle goes on at a whole block.
    const from = Math.floor(done / blockBytes) * blockBytes;
    const position = index * pieceBytes + from;
    const { bytesRead } = await handle.read(buffer, from, end - from, position);
    if (from + bytesRead <= done) break;
    done = from + bytesRead;
  }
  return done;
}

/**
 * Through the page cache: one piece after the other and in small reads, since the system reads ahead of one reader that asks for little; two
 * that take turns, or one that asks for more than is read ahead, are slower than the disk.
 */
function cachedReads(handle: FileHandle) {
  let last: Promise<unknown> = Promise.resolve();
  const readNow = async (index: number, buffer: Buffer, length: number): Promise<number> => {
    let done = 0;
    while (done < length) {
      const count = Math.min(cachedReadBytes, length - done);
      const { bytesRead } = await handle.read(buffer, done, count, index * pieceBytes + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  };
  return (index: number, buffer: Buffer, length: number): Promise<number> => {
    const read = last.then(() => readNow(index, buffer, length));
    last = read.catch(() => undefined);
    return read;
  };
}

/** The same file once more, whatever its name stands for by now. */
async function openDirect(handle: FileHandle, buffer: Buffer): Promise<FileHandle | undefined> {
  let direct: FileHandle | undefined;
  try {
    direct = await open(`/proc/self/fd/${handle.fd}`, constants.O_RDONLY | constants.O_DIRECT);
    // Some file systems refuse at the first read only.
    await direct.read(buffer, 0, blockBytes, 0);
    return direct;
  } catch {
    await direct?.close();
    return undefined;
  }
}

/** A file that is written piece by piece, in any order, beside the page cache where its file system takes that. */
export interface PieceFile {
  /** The pieces in memory are whole blocks: what lies behind `length` in the last one is overwritten with zeros. */
  write(index: number, piece: Buffer, length: number): Promise<void>;
  /** Cuts what the last block has too much, and waits for the disk. */
  finish(bytes: number): Promise<void>;
  close(): Promise<void>;
}

/** A new file that begins with `first`, of which `length` bytes are its own. */
export async function createPieceFile(
  path: string,
  first: Buffer,
  length: number,
): Promise<PieceFile> {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_DIRECT } = constants;
  for (const direct of [O_DIRECT ?? 0, 0]) {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, O_WRONLY | O_CREAT | O_TRUNC | direct, 0o644);
      const file = pieceFileOf(handle, direct !== 0);
      await file.write(0, first, length);
      return file;
    } catch (error) {
      await handle?.close();
      // Neither tmpfs nor some network file systems know O_DIRECT; they say so at the open or at the first write.
      if (direct === 0 || (error as NodeJS.ErrnoException).code !== "EINVAL") throw error;
    }
  }
  throw new RangeError("unreachable");
}

function pieceFileOf(handle: FileHandle, isDirect: boolean): PieceFile {
  return {
    async write(index, piece, length) {
      const padded = isDirect ? Math.ceil(length / blockBytes) * blockBytes : length;
      piece.fill(0, length, padded);
      for (let done = 0; done < length; ) {
        const position = index * pieceBytes + done;
        const { bytesWritten } = await handle.write(piece, done, padded - done, position);
        // After a short write the rest begins at a whole block again.
        done += isDirect ? Math.floor(bytesWritten / blockBytes) * blockBytes : bytesWritten;
        if (bytesWritten === 0) throw new Error("the disk takes no more bytes");
      }
    },
    async finish(bytes) {
      if (isDirect) await handle.truncate(bytes);
      await handle.sync();
    },
    close: () => handle.close(),
  };
}
