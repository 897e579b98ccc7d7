/** What a file of a checkpoint holds, taken from its bytes as they pass by: nothing of it is to be used before their hash was right. */
import { intersect, type Range } from "@paddock/contract";
import { corrupt } from "./manifest.js";
import { decodeHeader, type Header, headerBytes } from "./safetensors.js";

/** Elements [start, start + target.length) of a unit's vector, and where they are to go. */
export interface Wanted {
  readonly kind: string;
  readonly unit: string;
  readonly start: number;
  readonly target: Float32Array;
}

/** Bytes [start, end) of the file and where they go. */
interface Copy {
  readonly start: number;
  readonly end: number;
  readonly target: Uint8Array;
}

interface Content {
  readonly header: Header;
  readonly ranges: Map<string, Range>;
  readonly extras: Map<string, Float32Array>;
}

export class FileContent {
  readonly #path: string;
  readonly #fileBytes: number;
  readonly #wanted: readonly Wanted[];
  /** The bytes up to the end of the header, while it is not complete. */
  #start: Buffer = Buffer.alloc(0);
  #content: Content | undefined;
  #copies: Copy[] = [];
  #failure: unknown;

  constructor(path: string, fileBytes: number, wanted: readonly Wanted[]) {
    this.#path = path;
    this.#fileBytes = fileBytes;
    this.#wanted = wanted;
  }

  /** The bytes from `at` on, which follow those of the last call. A bad header shows in `finish`: a wrong hash says more. */
  take(block: Buffer, at: number): void {
    if (this.#failure !== undefined) return;
    try {
      if (!this.#content) this.#readHeader(block);
      for (const { start, end, target } of this.#copies) {
        // There are many, and few of them lie here.
        if (end <= at || start >= at + block.length) continue;
        const common = intersect({ start, end }, { start: at, end: at + block.length });
        if (!common) continue;
        target.set(block.subarray(common.start - at, common.end - at), common.start - start);
      }
    } catch (error) {
      this.#failure = error;
    }
  }

  /** `checkpoint-corrupt` when the header was none, or not complete. */
  finish(): Content {
    if (this.#failure !== undefined) throw this.#failure;
    if (!this.#content)
      throw corrupt(this.#path, "expected a header, received the end of the file");
    return this.#content;
  }

  #readHeader(block: Buffer): void {
    this.#start = this.#start.length === 0 ? block : Buffer.concat([this.#start, block]);
    const length = headerBytes(this.#start.subarray(0, 8), this.#fileBytes, this.#path);
    if (this.#start.length < 8 + length) {
      // The block is used again for later bytes.
      this.#start = Buffer.from(this.#start);
      return;
    }
    const json = this.#start.subarray(8, 8 + length);
    const header = decodeHeader(json, this.#fileBytes, this.#path);
    const ranges = rangesOf(this.#path, header);
    const extras = new Map<string, Float32Array>();
    for (const [name, { dtype, dataOffsets }] of header.tensors) {
      const range = ranges.get(name);
      const start = header.dataStart + dataOffsets[0];
      if (range) this.#want(name, range, start);
      else if (dtype === "F32") {
        const values = new Float32Array((dataOffsets[1] - dataOffsets[0]) / 4);
        extras.set(name, values);
        this.#copies.push({ start, end: start + values.byteLength, target: bytesOf(values) });
      }
    }
    this.#start = Buffer.alloc(0);
    this.#content = { header, ranges, extras };
  }

  /** @param at position in the file of the range's first element */
  #want(name: string, range: Range, at: number): void {
    for (const { kind, unit, start, target } of this.#wanted) {
      if (name !== `${kind}/${unit}`) continue;
      const common = intersect(range, { start, end: start + target.length });
      if (!common) continue;
      const part = target.subarray(common.start - start, common.end - start);
      const first = at + 4 * (common.start - range.start);
      this.#copies.push({ start: first, end: first + part.byteLength, target: bytesOf(part) });
    }
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
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
