/** Makes small image files and IDX files, whole or damaged. For tests. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import type { Channels } from "../image.js";

/** A new folder, and how to delete it. */
export function makeFolder(): { folder: string; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), "paddock-data-"));
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** Reproducible pixels that JPEG keeps well: a smooth pattern that differs between variants. */
export function pattern(
  width: number,
  height: number,
  channels: Channels,
  variant: number,
): Uint8Array {
  return Uint8Array.from({ length: width * height * channels }, (_, i) => {
    const [x, y] = [Math.floor(i / channels) % width, Math.floor(i / channels / width)];
    const wave = Math.sin(x / (5 + variant)) * Math.cos(y / (3 + variant)) + (i % channels) / 3;
    return Math.round(127 + 60 * wave);
  });
}

/** An encoded image file of `pattern`. */
export async function encoded(
  format: "jpeg" | "png" | "webp" | "gif" | "tiff",
  size: { readonly width: number; readonly height: number; readonly channels: Channels },
  variant = 0,
): Promise<Buffer> {
  const { width, height, channels } = size;
  const image = sharp(pattern(width, height, channels, variant), { raw: size });
  return image
    .toColourspace(channels === 1 ? "b-w" : "srgb")
    .toFormat(format, format === "tiff" ? { compression: "lzw" } : {}) // TIFF is JPEG inside by default
    .toBuffer();
}

/** A PNG header and nothing else, claiming the given size. */
export function pngClaiming(width: number, height: number): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bit RGB
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const data = pngChunk("IDAT", Buffer.from([0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01]));
  return Buffer.concat([
    signature,
    pngChunk("IHDR", header),
    data,
    pngChunk("IEND", Buffer.alloc(0)),
  ]);
}

function pngChunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const chunk = Buffer.alloc(body.length + 8);
  chunk.writeUInt32BE(data.length, 0);
  chunk.set(body, 4);
  chunk.writeUInt32BE(crc(body), body.length + 4);
  return chunk;
}

/** CRC-32 as PNG and gzip use it. */
function crc(bytes: Uint8Array): number {
  let state = 0xffffffff;
  for (const byte of bytes) {
    state ^= byte;
    for (let bit = 0; bit < 8; bit++) state = (state >>> 1) ^ (state & 1 ? 0xedb88320 : 0);
  }
  return (state ^ 0xffffffff) >>> 0;
}

/** An IDX array of bytes. */
export function idx(dimensions: readonly number[], bytes: Uint8Array): Buffer {
  const header = Buffer.alloc(4 + 4 * dimensions.length);
  header.writeUInt32BE(0x0800 + dimensions.length, 0);
  dimensions.forEach((size, i) => {
    header.writeUInt32BE(size, 4 + 4 * i);
  });
  return Buffer.concat([header, bytes]);
}

/** Writes a small labelled IDX training set of `count` 28 x 28 images, label = id % 10. */
export function writeIdxSet(folder: string, count: number): void {
  const pixels = Uint8Array.from({ length: count * 784 }, (_, i) => (i * 31 + (i >> 7)) % 256);
  writeFileSync(join(folder, "train-images-idx3-ubyte"), idx([count, 28, 28], pixels));
  const labels = Uint8Array.from({ length: count }, (_, id) => id % 10);
  writeFileSync(join(folder, "train-labels-idx1-ubyte"), idx([count], labels));
}
