/** One file of a checkpoint, opened only after its size, the hash of every byte and its header were found right. */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import type { Manifest, ManifestFile, Range } from "@paddock/contract";
import { corrupt } from "./manifest.js";
import { decodeHeader, type Header, headerBytes } from "./safetensors.js";

/** One hash update: under a millisecond of the event loop. */
const hashPieceBytes = 2 ** 20;

export interface VerifiedFile {
  readonly path: string;
  readonly header: Header;
  /** Ranges of units' vectors that the sharded tensors hold, by tensor name. */
  readonly ranges: ReadonlyMap<string, Range>;
  /** Fills `target` with values of an F32 tensor, from its element `first` on. */
  read(tensor: string, first: number, target: Float32Array): Promise<void>;
  close(): Promise<void>;
}

/** The caller closes it. Throws `checkpoint-corrupt`. */
export async function openVerified(
  directory: string,
  manifest: Manifest,
  entry: ManifestFile,
): Promise<VerifiedFile> {
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
    const sha256 = await hashOf(handle);
    if (sha256 !== entry.sha256) {
      throw corrupt(path, `expected sha256 ${entry.sha256}, received ${sha256}`);
    }
    const start = await bytesAt(handle, path, 0, Buffer.alloc(Math.min(8, size)));
    const json = Buffer.alloc(headerBytes(start, size, path));
    const header = decodeHeader(await bytesAt(handle, path, 8, json), size, path);
    checkOrigin(path, header, manifest, entry);
    return fileOf(handle, path, header);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function fileOf(handle: FileHandle, path: string, header: Header): VerifiedFile {
  return {
    path,
    header,
    ranges: rangesOf(path, header),
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

async function hashOf(handle: FileHandle): Promise<string> {
  const hash = createHash("sha256");
  const piece = Buffer.allocUnsafe(hashPieceBytes);
  for (let at = 0; ; ) {
    const { bytesRead } = await handle.read(piece, 0, piece.length, at);
    if (bytesRead === 0) return hash.digest("hex");
    hash.update(piece.subarray(0, bytesRead));
    at += bytesRead;
  }
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

function rangesOf(path: string, header: Header): Map<string, Range> {
  const ranges = new Map<string, Range>();
  for (const [name, range] of Object.entries(parseRanges(path, header))) {
    const { start, end } = (range ?? {}) as Record<string, unknown>;
    const info = header.tensors.get(name);
    const values = Number(end) - Number(start);
    const isRange = Number.isSafeInteger(start) && Number.isSafeInteger(end) && Number(start) >= 0;
    if (!isRange || info?.dtype !== "F32" || info.shape.length !== 1 || info.shape[0] !== values) {
      throw corrupt(
        path,
        `${name}: expected F32 [${values}] for its range, received another shape`,
      );
    }
    ranges.set(name, { start: Number(start), end: Number(end) });
  }
  return ranges;
}

function parseRanges(path: string, header: Header): object {
  try {
    const parsed: unknown = JSON.parse(header.metadata["ranges"] ?? "{}");
    if (typeof parsed === "object" && parsed !== null) return parsed;
  } catch (error) {
    throw corrupt(path, "expected ranges as JSON in its metadata, received something else", error);
  }
  throw corrupt(path, "expected ranges as an object in its metadata, received something else");
}
