/** Reads of large files in pieces, some ahead: the bytes of the file, whichever way they come. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, truncateSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PieceMemory, pieceBytes, readBuffers } from "./piece-memory.js";
import { pieceReader } from "./pieces.js";

const folder = mkdtempSync(join(tmpdir(), "paddock-pieces-"));
const path = join(folder, "file");
/** Whole pieces, and a part of a block. */
const bytes = 8 * pieceBytes + 5000;
let written = "";

beforeAll(async () => {
  const file = await open(path, "w");
  const hash = createHash("sha256");
  for (let at = 0; at < bytes; at += pieceBytes) {
    const piece = Buffer.alloc(Math.min(pieceBytes, bytes - at), `piece at ${at}, `);
    hash.update(piece);
    await file.write(piece);
  }
  await file.close();
  written = hash.digest("hex");
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Two pieces are under way at any time, as a load has them. */
async function readAll(
  handle: FileHandle,
  mayBeCached: boolean,
): Promise<{ hash: string; total: number }> {
  const { buffers } = readBuffers(new PieceMemory(), { first: 0, count: 2, bytes });
  const reader = await pieceReader(handle, bytes, buffers[0], mayBeCached);
  const count = Math.ceil(bytes / pieceBytes);
  const start = (index: number): Promise<Buffer> =>
    reader.read(
      index,
      buffers[index % 2] as Buffer,
      Math.min(pieceBytes, bytes - index * pieceBytes),
    );
  const hash = createHash("sha256");
  let total = 0;
  const reads = [start(0), start(1)];
  for (let index = 0; index < count; index++) {
    const piece = await (reads[index] as Promise<Buffer>);
    hash.update(piece);
    total += piece.length;
    if (index + 2 < count) reads.push(start(index + 2));
  }
  await reader.close();
  return { hash: hash.digest("hex"), total };
}

test("every piece is the file's, beside the page cache and through it", async () => {
  const handle = await open(path, "r");
  try {
    for (const mayBeCached of [true, false]) {
      expect(await readAll(handle, mayBeCached)).toEqual({ hash: written, total: bytes });
    }
  } finally {
    await handle.close();
  }
});

test("a file that ends early gives fewer bytes, in either way", async () => {
  for (const end of [2 * pieceBytes + 100, 7 * pieceBytes + 100]) {
    truncateSync(path, end);
    const handle = await open(path, "r");
    try {
      expect((await readAll(handle, true)).total).toBe(end);
    } finally {
      await handle.close();
      truncateSync(path, bytes);
    }
  }
});
