/**
 * The safetensors format: u64 little-endian header length, JSON header, raw little-endian data. The header is padded with
 * spaces to a multiple of 8, so that tensors of 4-byte values can be viewed in place. A header is never trusted on read.
 */
import { PaddockError } from "@paddock/contract";

export type Dtype = "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "U8" | "BOOL";

export interface TensorInfo {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Bytes [start, end) behind the header. */
  readonly dataOffsets: readonly [number, number];
}

export interface Header {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Bytes before the data: 8 + header. */
  readonly dataStart: number;
}

export const bytesOfDtype: Readonly<Record<Dtype, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  U8: 1,
  BOOL: 1,
};
/** Far beyond any real header; bounds what a damaged length makes us allocate. */
export const maxHeaderBytes = 64 * 2 ** 20;

/** The bytes before the data of a file that holds the tensors in the given order. */
export function encodeHeader(
  tensors: ReadonlyMap<string, { readonly dtype: Dtype; readonly shape: readonly number[] }>,
  metadata: Readonly<Record<string, string>>,
): Buffer {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const [name, { dtype, shape }] of tensors) {
    const bytes = bytesOfShape(dtype, shape);
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.alloc(Math.ceil(json.length / 8) * 8, " ");
  json.copy(padded);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded]);
}

/** Bytes of the JSON header, from the first 8 bytes of a file of `fileBytes`. */
export function headerBytes(start: Buffer, fileBytes: number, file: string): number {
  const length = start.length >= 8 ? Number(start.readBigUInt64LE(0)) : Number.NaN;
  if (!(length <= maxHeaderBytes && length + 8 <= fileBytes)) {
    throw damaged(
      file,
      `expected a header of at most ${Math.min(maxHeaderBytes, fileBytes - 8)} bytes, received a length of ${length}`,
    );
  }
  return length;
}

/** Parses and checks the JSON header: known dtypes, sizes that fit shapes, tensors that tile the data without gap or overlap. */
export function decodeHeader(json: Buffer, fileBytes: number, file: string): Header {
  const parsed = parseJson(json, file);
  const tensors = new Map<string, TensorInfo>();
  for (const [name, value] of Object.entries(parsed)) {
    if (name !== "__metadata__") tensors.set(name, tensorInfo(name, value, file));
  }
  const dataStart = 8 + json.length;
  let end = 0;
  // By start, then end: an empty tensor comes before the one that begins at the same byte.
  const inOrder = [...tensors].sort(
    ([, { dataOffsets: a }], [, { dataOffsets: b }]) => a[0] - b[0] || a[1] - b[1],
  );
  for (const [name, info] of inOrder) {
    if (info.dataOffsets[0] !== end)
      throw damaged(file, `expected ${name} at byte ${end}, received ${info.dataOffsets[0]}`);
    end = info.dataOffsets[1];
  }
  if (dataStart + end !== fileBytes)
    throw damaged(file, `expected ${dataStart + end} bytes, received ${fileBytes}`);
  return { tensors, metadata: metadataOf(parsed["__metadata__"]), dataStart };
}

function parseJson(json: Buffer, file: string): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(json.toString("utf8"));
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) {
      return parsed as Record<string, unknown>;
    }
  } catch (error) {
    throw damaged(file, "expected a JSON header, received something else", error);
  }
  throw damaged(file, "expected a JSON object as header");
}

function tensorInfo(name: string, value: unknown, file: string): TensorInfo {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  const isCount = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;
  if (typeof dtype !== "string" || !Object.hasOwn(bytesOfDtype, dtype)) {
    throw damaged(
      file,
      `${name}: expected dtype ${Object.keys(bytesOfDtype).join(", ")}, received ${String(dtype)}`,
    );
  }
  if (
    !Array.isArray(shape) ||
    !shape.every(isCount) ||
    !Array.isArray(offsets) ||
    !offsets.every(isCount)
  ) {
    throw damaged(file, `${name}: expected a shape and two data offsets`);
  }
  const [start, end] = offsets as [number, number];
  const bytes = bytesOfShape(dtype as Dtype, shape);
  if (offsets.length !== 2 || end - start !== bytes) {
    throw damaged(file, `${name}: expected ${bytes} bytes of data, received ${end - start}`);
  }
  return { dtype: dtype as Dtype, shape, dataOffsets: [start, end] };
}

function metadataOf(value: unknown): Record<string, string> {
  const entries = Object.entries((value ?? {}) as Record<string, unknown>);
  return Object.fromEntries(entries.map(([key, text]) => [key, String(text)]));
}

function bytesOfShape(dtype: Dtype, shape: readonly number[]): number {
  return shape.reduce((product, side) => product * side, 1) * bytesOfDtype[dtype];
}

function damaged(file: string, what: string, cause?: unknown): PaddockError {
  return new PaddockError(
    "checkpoint-corrupt",
    `${file}: ${what}; it was not written by this program, or damaged before its hash was taken`,
    { cause },
  );
}
