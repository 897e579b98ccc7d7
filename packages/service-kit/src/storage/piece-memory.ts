/** Memory that files are written from and read into, in equal pieces: page-aligned, as O_DIRECT wants it, and in huge pages where there are any. */

/** Bytes of one write or read: large enough for any disk, and hashed in a few milliseconds. */
export const pieceBytes = 8 * 2 ** 20;
const pageBytes = 65_536;
/** Of one WebAssembly memory: it can be larger, but not on every machine. */
const slabPieces = 128;
const hugePageBytes = 2 * 2 ** 20;

/**
 * Asks for huge pages for untouched memory; returns the index of the first byte at one, undefined where there are none. A device is told of each
 * page that lies for itself: with pages of 4 KiB a virtual disk here reads 8 MiB at 0.6 GB/s, with pages of 2 MiB at 2.6.
 */
export type AdviseHugePages = (bytes: Uint8Array) => number | undefined;

/** Grows to the largest request and is reused: what it holds is the bound of a save's extra memory. */
export class PieceMemory {
  readonly #slabs: Buffer[] = [];
  readonly #advise: AdviseHugePages | undefined;
  #isHuge = true;

  constructor(advise?: AdviseHugePages) {
    this.#advise = advise;
  }

  get bytes(): number {
    return this.#slabs.reduce((sum, { length }) => sum + length, 0);
  }

  /** Whether all of it lies in huge pages. */
  get isHuge(): boolean {
    return this.#isHuge;
  }

  /** Makes room for so many pieces. */
  reserve(pieces: number): void {
    for (let left = pieces - this.bytes / pieceBytes; left > 0; ) {
      const count = Math.min(left, slabPieces);
      this.#slabs.push(this.#allocate(count * pieceBytes));
      left -= count;
    }
  }

  /** The memory of a piece that was reserved. */
  piece(index: number): Buffer {
    let at = index * pieceBytes;
    for (const slab of this.#slabs) {
      if (at < slab.length) return slab.subarray(at, at + pieceBytes);
      at -= slab.length;
    }
    throw new RangeError(`piece ${index} of ${this.bytes / pieceBytes}`);
  }

  #allocate(bytes: number): Buffer {
    // What is never touched costs nothing.
    const memory = alignedBuffer(bytes + hugePageBytes);
    const start = this.#advise?.(memory);
    if (start === undefined) this.#isHuge = false;
    return memory.subarray(start ?? 0, (start ?? 0) + bytes);
  }
}

export interface ReadBuffers {
  readonly buffers: readonly Buffer[];
  readonly areHuge: boolean;
}

/**
 * Buffers for the reads of one file after the other, of a piece each: pieces of `memory` from `first` on, which grows to hold them.
 * @param bytes of the largest of the files; small ones have small buffers of their own
 */
export function readBuffers(
  memory: PieceMemory,
  { first, count, bytes }: { first: number; count: number; bytes: number },
): ReadBuffers {
  if (!isLarge(bytes)) {
    const buffers = Array.from({ length: count }, () => Buffer.allocUnsafeSlow(bytes));
    return { buffers, areHuge: false };
  }
  memory.reserve(first + count);
  const buffers = Array.from({ length: count }, (_, i) => memory.piece(first + i));
  return { buffers, areHuge: memory.isHuge };
}

/** Whether a file is worth the way around the page cache. */
export function isLarge(bytes: number): boolean {
  return bytes > pieceBytes;
}

interface Wasm {
  readonly Memory: new (pages: {
    initial: number;
    maximum: number;
  }) => { readonly buffer: ArrayBuffer };
}

/** WebAssembly's memory begins at a page; an ArrayBuffer's need not. */
function alignedBuffer(bytes: number): Buffer {
  // Its types come with those of browsers only.
  const { WebAssembly } = globalThis as unknown as { readonly WebAssembly: Wasm };
  const pages = bytes / pageBytes;
  return Buffer.from(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer);
}
