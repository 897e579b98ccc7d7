/** Reads a checkpoint, written by any number of workers: every byte is verified before any value is used. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  intersect,
  type Layout,
  type Manifest,
  type ManifestFile,
  PaddockError,
  type Range,
} from "@paddock/contract";
import { decodeHeader, type Header, headerBytes } from "./safetensors.js";

export interface Checkpoint {
  readonly manifest: Manifest;
  /** Elements [start, end) of one kind ("student", "m", "v", "teacher") of a unit. */
  readRange(kind: string, unit: string, start: number, end: number): Promise<Float32Array>;
  /** A value that is not sharded, or undefined. */
  extra(name: string): Promise<Float32Array | undefined>;
  close(): Promise<void>;
}

interface Piece {
  readonly file: OpenFile;
  readonly range: Range;
  /** Absolute byte of the piece's first value. */
  readonly at: number;
}

interface OpenFile {
  readonly path: string;
  readonly handle: FileHandle;
  readonly header: Header;
}

/**
 * Opens the checkpoint in `directory`. Throws `checkpoint-corrupt` when the manifest, a file's size or hash, or the coverage
 * of the layout is not as expected; `not-found` when there is no manifest.
 */
export async function openCheckpoint(directory: string, layout: Layout): Promise<Checkpoint> {
  const manifest = await readManifest(directory);
  checkLayout(directory, manifest, layout);
  const files: OpenFile[] = [];
  try {
    for (const entry of manifest.files) files.push(await openVerified(directory, entry));
    const pieces = piecesOf(files);
    checkCoverage(directory, pieces, layout);
    return checkpointOf(manifest, files, pieces);
  } catch (error) {
    for (const file of files) await file.handle.close();
    throw error;
  }
}

function checkpointOf(
  manifest: Manifest,
  files: readonly OpenFile[],
  pieces: ReadonlyMap<string, Piece[]>,
): Checkpoint {
  return {
    manifest,
    async readRange(kind, unit, start, end) {
      const values = new Float32Array(end - start);
      for (const piece of pieces.get(`${kind}/${unit}`) ?? []) {
        const common = intersect(piece.range, { start, end });
        if (!common) continue;
        const target = values.subarray(common.start - start, common.end - start);
        await readInto(piece.file, piece.at + 4 * (common.start - piece.range.start), target);
      }
      return values;
    },
    async extra(name) {
      for (const file of files) {
        const info = file.header.tensors.get(name);
        if (!info) continue;
        const values = new Float32Array((info.dataOffsets[1] - info.dataOffsets[0]) / 4);
        await readInto(file, file.header.dataStart + info.dataOffsets[0], values);
        return values;
      }
      return undefined;
    },
    async close() {
      for (const file of files) await file.handle.close();
    },
  };
}

async function readManifest(directory: string): Promise<Manifest> {
  const path = join(directory, "manifest.json");
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new PaddockError(
      "not-found",
      `expected a complete checkpoint in ${directory}, found no manifest.json`,
      { cause: error },
    );
  });
  try {
    const manifest = JSON.parse(text) as Manifest;
    if (manifest.format === "paddock-checkpoint" && manifest.version === 1) return manifest;
  } catch (error) {
    throw corrupt(path, "expected JSON, received something else", error);
  }
  throw corrupt(path, 'expected format "paddock-checkpoint", version 1');
}

function checkLayout(directory: string, manifest: Manifest, layout: Layout): void {
  const expected = layout.units.map(({ name, elements }) => `${name}:${elements}`).join(" ");
  const received = manifest.units.map(({ name, elements }) => `${name}:${elements}`).join(" ");
  if (expected !== received) {
    throw corrupt(
      directory,
      `expected units ${expected}, received ${received}; was it written by a run with another model?`,
    );
  }
}

/** Size first, then the hash of every byte, then the header. */
async function openVerified(directory: string, entry: ManifestFile): Promise<OpenFile> {
  if (basename(entry.name) !== entry.name)
    throw corrupt(directory, `file name "${entry.name}" leaves the checkpoint`);
  const path = join(directory, entry.name);
  const bytes = await stat(path).then(
    (found) => found.size,
    () => undefined,
  );
  if (bytes !== entry.bytes)
    throw corrupt(path, `expected ${entry.bytes} bytes, received ${bytes ?? "no file"}`);
  const sha256 = await hashOf(path);
  if (sha256 !== entry.sha256)
    throw corrupt(path, `expected sha256 ${entry.sha256}, received ${sha256}`);
  const handle = await open(path, "r");
  try {
    const start = Buffer.alloc(8);
    await handle.read(start, 0, 8, 0);
    const json = Buffer.alloc(headerBytes(start, bytes, path));
    await handle.read(json, 0, json.length, 8);
    return { path, handle, header: decodeHeader(json, bytes, path) };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path, { highWaterMark: 2 ** 20 }))
    hash.update(piece as Buffer);
  return hash.digest("hex");
}

/** Where each sharded vector lies, by "<kind>/<unit>", in order. */
function piecesOf(files: readonly OpenFile[]): Map<string, Piece[]> {
  const pieces = new Map<string, Piece[]>();
  for (const file of files) {
    const ranges = JSON.parse(file.header.metadata["ranges"] ?? "{}") as Record<string, Range>;
    for (const [name, range] of Object.entries(ranges)) {
      const info = file.header.tensors.get(name);
      if (info?.dtype !== "F32" || info.shape[0] !== range.end - range.start) {
        throw corrupt(file.path, `${name}: expected ${range.end - range.start} values of F32`);
      }
      const list = pieces.get(name) ?? [];
      list.push({ file, range, at: file.header.dataStart + info.dataOffsets[0] });
      pieces.set(name, list);
    }
  }
  for (const list of pieces.values()) list.sort((a, b) => a.range.start - b.range.start);
  return pieces;
}

/** Every element of every kind and unit exactly once. */
function checkCoverage(
  directory: string,
  pieces: ReadonlyMap<string, Piece[]>,
  layout: Layout,
): void {
  for (const kind of ["student", "m", "v", "teacher"]) {
    for (const unit of layout.units) {
      let at = 0;
      for (const { range } of pieces.get(`${kind}/${unit.name}`) ?? []) {
        if (range.start !== at)
          throw corrupt(
            directory,
            `${kind}/${unit.name}: expected element ${at}, received ${range.start}`,
          );
        at = range.end;
      }
      if (at !== unit.elements) {
        throw corrupt(
          directory,
          `${kind}/${unit.name}: expected ${unit.elements} elements, received ${at}`,
        );
      }
    }
  }
}

async function readInto(file: OpenFile, position: number, target: Float32Array): Promise<void> {
  const bytes = new Uint8Array(target.buffer, target.byteOffset, target.byteLength);
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesRead } = await file.handle.read(
      bytes,
      done,
      bytes.byteLength - done,
      position + done,
    );
    if (bytesRead === 0)
      throw corrupt(
        file.path,
        `expected ${bytes.byteLength} bytes at ${position}, the file ends before`,
      );
    done += bytesRead;
  }
}

function corrupt(where: string, what: string, cause?: unknown): PaddockError {
  return new PaddockError(
    "checkpoint-corrupt",
    `${where}: ${what}. Nothing was loaded. Restore the file, or move this checkpoint's folder away to resume from the one before`,
    { cause },
  );
}
