/** Memory that files are written from and read into, in equal pieces: page-aligned, as O_DIRECT wants it, and in huge pages where there are any. */

/** Bytes of one write or read: large enough for any disk, and hashed in a few milliseconds. */
export const pieceBytes = 8 * 2 ** 20;
const pageBytes = 65_536;
/** A WebAssembly memory can be larger, but not on every machine. */
const slabPieces = 128;

/**
 * Memory in huge pages, of at least so many bytes; undefined where there is none. A device is told of each page that lies for itself: with pages
 * of 4 KiB a virtual disk here reads 8 MiB at 0.6 GB/s, with pages of 2 MiB at 2.6.
 */
export type HugePages = (bytes: number) => ArrayBuffer | undefined;

/** Grows to the largest request and is reused: what it holds is the bound of a save's extra memory. */
export class PieceMemory {
  readonly #slabs: Buffer[] = [];
  readonly #hugePages: HugePages | undefined;
  #isHuge = true;

  constructor(hugePages?: HugePages) {
    this.#hugePages = hugePages;
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
    const huge = this.#hugePages?.(bytes);
    if (huge) return Buffer.from(huge, 0, bytes);
    this.#isHuge = false;
    return alignedBuffer(bytes);
  }
}

export interface ReadBuffers {
  readonly buffers: readonly Buffer[];
  readonly areHuge: boolean;
}

/** Buffers for the reads of one file after the other, of a piece each. @param bytes of the largest of the files */
export function readBuffers(count: number, bytes: number, hugePages?: HugePages): ReadBuffers {
  if (!isLarge(bytes)) {
    const buffers = Array.from({ length: count }, () => Buffer.allocUnsafeSlow(bytes));
    return { buffers, areHuge: false };
  }
  const memory = new PieceMemory(hugePages);
  memory.reserve(count);
  const buffers = Array.from({ length: count }, (_, i) => memory.piece(i));
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
