import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, expect, test } from "vitest";
import { BadImageError, type Image, withChannels } from "../image.js";
import { distance } from "../testing/distance.js";
import { encoded, makeFolder, pattern, pngClaiming } from "../testing/images.js";
import { decodeFile, readImageHeader } from "./decode.js";

const { folder, remove } = makeFolder();
afterAll(remove);

const maxSide = 4096;
const size = { width: 40, height: 30, channels: 3 } as const;

function written(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

async function refused(path: string, limit = maxSide): Promise<BadImageError> {
  const error: unknown = await decodeFile(path, limit).catch((thrown) => thrown);
  expect(error).toBeInstanceOf(BadImageError);
  expect(error).toMatchObject({ path });
  return error as BadImageError;
}

test.each([
  ["png", 0],
  ["tiff", 0],
  ["jpeg", 12],
  ["webp", 24],
  ["gif", 60],
] as const)("%s is decoded", async (format, tolerance) => {
  const path = written(`whole.${format}`, await encoded(format, size));
  const image = await decodeFile(path, maxSide);
  expect(image).toMatchObject(size);
  expect(distance(image.pixels, pattern(40, 30, 3, 0)).max).toBeLessThanOrEqual(tolerance);
});

test("the header says format and size without decoding", async () => {
  const path = written("header.png", await encoded("png", size));
  expect(await readImageHeader(path, maxSide)).toEqual({ format: "png", ...size });
});

test("transparency is dropped, palettes and 16 bits become 8-bit RGB or grey", async () => {
  const pixels = pattern(8, 8, 3, 1);
  const rgb = sharp(pixels, { raw: { width: 8, height: 8, channels: 3 } });
  const transparent = written("alpha.png", await rgb.clone().ensureAlpha(0.5).png().toBuffer());
  expect((await decodeFile(transparent, maxSide)).pixels).toEqual(pixels);
  const deep = written("deep.png", await rgb.clone().toColourspace("rgb16").png().toBuffer());
  expect(distance((await decodeFile(deep, maxSide)).pixels, pixels).max).toBeLessThanOrEqual(1);
  const palette = written("palette.png", await rgb.clone().png({ palette: true }).toBuffer());
  expect(await decodeFile(palette, maxSide)).toMatchObject({ channels: 3, width: 8 });
  const grey = sharp(pattern(8, 8, 1, 1), { raw: { width: 8, height: 8, channels: 1 } });
  const deepGrey = written("grey.png", await grey.toColourspace("grey16").png().toBuffer());
  const decoded = await decodeFile(deepGrey, maxSide);
  expect(decoded.channels).toBe(1);
  expect(distance(decoded.pixels, pattern(8, 8, 1, 1)).max).toBeLessThanOrEqual(1);
});

test("a CMYK jpeg becomes RGB", async () => {
  const bytes = await sharp(pattern(16, 16, 3, 0), { raw: { width: 16, height: 16, channels: 3 } })
    .toColourspace("cmyk")
    .jpeg()
    .toBuffer();
  expect(await decodeFile(written("cmyk.jpg", bytes), maxSide)).toMatchObject({ channels: 3 });
});

test.each(["jpeg", "png", "webp", "gif", "tiff"] as const)(
  "a %s cut short is refused",
  async (format) => {
    const bytes = await encoded(format, { width: 300, height: 200, channels: 3 });
    for (const part of [0.3, 0.7]) {
      const cut = bytes.subarray(0, Math.floor(bytes.length * part));
      const { reason } = await refused(written(`cut.${format}`, cut));
      expect(reason.length).toBeGreaterThan(5);
    }
  },
);

test("damaged, empty and foreign files are refused with path and reason", async () => {
  const png = await encoded("png", { width: 100, height: 100, channels: 3 });
  png.fill(0x55, png.length >> 1, (png.length >> 1) + 40);
  await refused(written("damaged.png", png));
  await refused(written("empty.jpg", ""));
  await refused(written("text.jpg", "not an image at all"));
  await refused(join(folder, "missing.jpg"));
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>';
  expect((await refused(written("vector.png", svg))).reason).toMatch(
    /expected one of .*received svg/,
  );
});

test("absurd dimensions are refused from the header", async () => {
  const path = written("bomb.png", pngClaiming(100_000, 100_000));
  expect((await refused(path)).reason).toMatch(/at most 4096 pixels .* received 100000 x 100000/);
  const long = written("long.png", pngClaiming(5000, 2));
  expect((await refused(long)).reason).toBe(
    "expected sides of at most 4096 pixels (data.maxSide), received 5000 x 2",
  );
  await expect(readImageHeader(long, maxSide)).rejects.toBeInstanceOf(BadImageError);
});

test("many pixels in a small file, and a file without measure, are refused before they are decoded", async () => {
  const bomb = written("small-bomb.png", pngClaiming(16_000, 16_000));
  expect((await refused(bomb, 16_384)).reason).toMatch(
    /at most \d+ pixels, received 16000 x 16000/,
  );
  const fat = written("fat.png", await encoded("png", size));
  truncateSync(fat, 600 * 2 ** 20);
  expect((await refused(fat)).reason).toMatch(/at most \d+ bytes, received 629145600/);
});

test("a side of exactly maxSide is accepted", async () => {
  const path = written("limit.png", await encoded("png", size));
  expect(await decodeFile(path, 40)).toMatchObject(size);
  await refused(path, 39);
});

test("one channel becomes three, and three become their luma", () => {
  const grey: Image = { width: 2, height: 1, channels: 1, pixels: Uint8Array.of(7, 200) };
  const three = withChannels(grey, 3);
  expect([...three.pixels]).toEqual([7, 7, 7, 200, 200, 200]);
  expect(withChannels(three, 1)).toEqual(grey);
  const colours: Image = { ...three, pixels: Uint8Array.of(255, 0, 0, 0, 255, 0) };
  expect([...withChannels(colours, 1).pixels]).toEqual([76, 150]);
});
