/**
 * The IDX format of the MNIST family: 8-bit grey images and labels, plain or gzipped, read whole into shared memory.
 * Format: big-endian; magic 00 00 08 <dimensions>, then one 32-bit size per dimension, then bytes. http://yann.lecun.com/exdb/mnist/
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { type DataSpec, PaddockError } from "@paddock/contract";
import type { Dataset, Split } from "./dataset.js";

/** The images of one split in memory; can be posted to a thread without copying. */
export interface IdxSource {
  readonly kind: "idx";
  /** Path of the images file. */
  readonly file: string;
  readonly width: number;
  readonly height: number;
  /** [count, height, width], in shared memory. */
  readonly pixels: Uint8Array;
  /** [count], in shared memory; null if the folder has no labels file. */
  readonly labels: Uint8Array | null;
}

const prefix = { train: "train", validation: "t10k" } as const;

/** Reads `<train|t10k>-images-idx3-ubyte[.gz]` and, if present, `-labels-idx1-ubyte[.gz]` of the folder `data.path`. */
export async function readIdx(data: DataSpec, split: Split): Promise<IdxSource> {
  const file = await findFile(data.path, `${prefix[split]}-images`, "idx3-ubyte");
  if (file === null) throw await missing(data.path, split);
  const images = await readArray(file, 3, data.maxSide);
  const [count, height, width] = images.dimensions as [number, number, number];
  const labelsFile = await findFile(data.path, `${prefix[split]}-labels`, "idx1-ubyte");
  const labels = labelsFile === null ? null : await readArray(labelsFile, 1, data.maxSide);
  if (labels !== null && labels.dimensions[0] !== count) {
    throw new PaddockError(
      "data-unavailable",
      `${labelsFile}: expected ${count} labels, one per image of ${file}, received ${labels.dimensions[0]}; are both of one dataset?`,
    );
  }
  return { kind: "idx", file, width, height, pixels: images.bytes, labels: labels?.bytes ?? null };
}

/** The dataset of images in memory. `load` gives views, never copies. */
export function idxDataset(source: IdxSource): Dataset {
  const { width, height, pixels, labels, file } = source;
  const size = width * height;
  return {
    count: pixels.length / size,
    classes: labels && classNames(labels),
    label: (id) => labels?.[id] ?? null,
    describe: (id) => `${file}#${id}`,
    load: async (id) => ({
      width,
      height,
      channels: 1,
      pixels: pixels.subarray(id * size, (id + 1) * size),
    }),
  };
}

/** IDX has no names: "0", "1", ... */
function classNames(labels: Uint8Array): string[] {
  const largest = labels.reduce((max, label) => Math.max(max, label), 0);
  return Array.from({ length: largest + 1 }, (_, label) => String(label));
}

/** Some copies write a dot before "idx". Plain files win over gzipped ones. */
async function findFile(folder: string, name: string, kind: string): Promise<string | null> {
  for (const file of [`${name}-${kind}`, `${name}.${kind}`]) {
    for (const path of [join(folder, file), join(folder, `${file}.gz`)]) {
      const isFile = await stat(path).then(
        (it) => it.isFile(),
        () => false,
      );
      if (isFile) return path;
    }
  }
  return null;
}

async function missing(folder: string, split: Split): Promise<PaddockError> {
  const exists = await stat(folder).then(
    (it) => (it.isDirectory() ? "a folder without it" : "a file"),
    () => "nothing there",
  );
  return new PaddockError(
    "data-unavailable",
    `${folder}: expected a folder with ${prefix[split]}-images-idx3-ubyte[.gz], received ${exists}; check data.path`,
  );
}

interface IdxArray {
  readonly dimensions: readonly number[];
  readonly bytes: Uint8Array;
}

async function readArray(path: string, rank: number, maxSide: number): Promise<IdxArray> {
  const reader = makeReader(path, rank, maxSide);
  let refusal: PaddockError | undefined;
  const collect = async (chunks: AsyncIterable<Buffer>): Promise<void> => {
    for await (const chunk of chunks) {
      try {
        reader.add(chunk);
      } catch (error) {
        refusal = PaddockError.from(error); // kept: the pipeline may report the aborted stream before it instead
        throw error;
      }
    }
  };
  try {
    if (path.endsWith(".gz")) await pipeline(createReadStream(path), createGunzip(), collect);
    else await pipeline(createReadStream(path), collect);
  } catch (error) {
    if (refusal) throw refusal;
    throw damaged(
      path,
      `${reader.expected()}, received ${reader.received()}: ${reason(error)}`,
      error,
    );
  }
  return reader.finish();
}

/** Takes the bytes as they come, and stops at the first one that the header does not announce: a bomb never unfolds. */
function makeReader(path: string, rank: number, maxSide: number) {
  const headerBytes = 4 + 4 * rank;
  const chunks: Buffer[] = [];
  let received = 0;
  let dimensions: readonly number[] | undefined;
  let wanted = headerBytes;
  const readHeader = (): void => {
    const header = Buffer.concat(chunks).subarray(0, headerBytes);
    dimensions = parseHeader(path, header, rank, maxSide);
    wanted = headerBytes + dimensions.reduce((product, size) => product * size, 1);
  };
  const expected = (): string => `expected ${wanted} bytes${dimensions ? "" : " of header"}`;
  return {
    expected,
    received: () => `${received} bytes`,
    add(chunk: Buffer): void {
      chunks.push(chunk);
      received += chunk.length;
      if (!dimensions && received >= headerBytes) readHeader();
      if (dimensions && received > wanted) {
        throw damaged(
          path,
          `expected ${wanted} bytes (its header says ${dimensions.join(" x ")}), received more`,
        );
      }
    },
    finish(): IdxArray {
      if (!dimensions || received < wanted) {
        throw damaged(path, `${expected()}, received ${received} bytes: it is truncated`);
      }
      const bytes = new Uint8Array(new SharedArrayBuffer(wanted - headerBytes));
      let at = -headerBytes;
      for (const chunk of chunks) {
        bytes.set(at < 0 ? chunk.subarray(-at) : chunk, Math.max(0, at));
        at += chunk.length;
      }
      return { dimensions, bytes };
    },
  };
}

function parseHeader(path: string, header: Buffer, rank: number, maxSide: number): number[] {
  const magic = header.readUInt32BE(0);
  const wanted = 0x0800 + rank;
  if (magic !== wanted) {
    throw damaged(path, `expected the IDX magic ${hex(wanted)}, received ${hex(magic)}`);
  }
  const dimensions = Array.from({ length: rank }, (_, i) => header.readUInt32BE(4 + 4 * i));
  const [count, ...sides] = dimensions as [number, ...number[]];
  if (count === 0 || sides.some((side) => side === 0 || side > maxSide)) {
    throw damaged(
      path,
      `expected at least one item and sides of 1 to ${maxSide} pixels (data.maxSide), received ${dimensions.join(" x ")}`,
    );
  }
  return dimensions;
}

function damaged(path: string, what: string, cause?: unknown): PaddockError {
  const message = `${path}: ${what}; download or install the dataset again`;
  return new PaddockError("data-unavailable", message, cause === undefined ? {} : { cause });
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, "0")}`;
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
