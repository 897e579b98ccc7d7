/** Decoding of image files with libvips. Refuses what is too large from its header, before any pixel is decoded. */
import { stat } from "node:fs/promises";
import type { Metadata, Sharp } from "sharp";
import { BadImageError, type Channels, type Image } from "../image.js";

/** libvips goes by content, not by name; formats that can refer to other files (SVG, PDF) stay shut. "heif" is AVIF. */
const formats = new Set<string>(["jpeg", "png", "webp", "gif", "tiff", "heif"]);

/** Files beyond are no photographs; libvips would map them whole. */
const maxFileBytes = 512 * 2 ** 20;
/** Pillow refuses what has more (twice its MAX_IMAGE_PIXELS): a file of some kilobytes can unfold to gigabytes. */
const maxPixels = 178_956_970;

/** What an image's header says. */
export interface ImageHeader {
  /** "jpeg", "png", ... as libvips names it. */
  readonly format: string;
  readonly width: number;
  readonly height: number;
  readonly channels: number;
}

/**
 * Reads the header of an image file without decoding pixels: cheap and safe on hostile files.
 * Throws `BadImageError` if there is no readable header or a side exceeds `maxSide` pixels.
 */
export async function readImageHeader(path: string, maxSide: number): Promise<ImageHeader> {
  const { format, width, height, channels } = await headerOf(path, maxSide);
  return { format, width, height, channels };
}

/**
 * Decodes a file to 8-bit grey (1 channel) or RGB, whichever it holds; transparency is dropped, the first page of many is taken,
 * orientation tags are ignored (as Pillow does). Throws `BadImageError` if the file is unreadable, corrupt, truncated or larger than
 * `maxSide` pixels on a side.
 */
export async function decodeFile(path: string, maxSide: number): Promise<Image> {
  const header = await headerOf(path, maxSide);
  const isGrey = header.space === "b-w" || header.space === "grey16";
  try {
    const image = await opened(path, maxSide * maxSide);
    const { data, info } = await image
      .removeAlpha()
      .toColourspace(isGrey ? "b-w" : "srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    const channels: Channels = isGrey ? 1 : 3;
    const bytes = info.width * info.height * channels;
    if (data.length !== bytes) {
      throw new BadImageError(path, `expected ${bytes} decoded bytes, received ${data.length}`);
    }
    const pixels = new Uint8Array(data.buffer, data.byteOffset, bytes);
    return { width: info.width, height: info.height, channels, pixels };
  } catch (error) {
    throw badImage(path, error);
  }
}

/** `error`: damaged or missing data fails; mere warnings (odd metadata, stray bytes) pass, as they do in Pillow. */
async function opened(path: string, limitInputPixels: number | false): Promise<Sharp> {
  loading ??= loadSharp();
  return (await loading)(path, { failOn: "error", limitInputPixels, pages: 1 });
}

/** With the first image: most threads and commands that know of datasets decode none, and libvips takes a fifth of a second. */
let loading: ReturnType<typeof loadSharp> | undefined;

async function loadSharp() {
  const { default: sharp } = await import("sharp");
  // One libvips thread per image: images are the unit of parallelism. Every file is read once per pass, so a cache only costs memory.
  sharp.concurrency(1);
  sharp.cache(false);
  return sharp;
}

async function headerOf(path: string, maxSide: number): Promise<Metadata> {
  const { size } = await stat(path).catch((error: unknown) => {
    throw badImage(path, error);
  });
  if (size > maxFileBytes) {
    throw new BadImageError(path, `expected at most ${maxFileBytes} bytes, received ${size}`);
  }
  let header: Metadata;
  try {
    const image = await opened(path, false); // no limit: our own message says the sides
    header = await image.metadata();
  } catch (error) {
    throw badImage(path, error);
  }
  const { format, width, height } = header;
  if (!formats.has(format)) {
    throw new BadImageError(
      path,
      `expected one of ${[...formats].join(", ")}, received ${format} inside the file`,
    );
  }
  if (width > maxSide || height > maxSide) {
    throw new BadImageError(
      path,
      `expected sides of at most ${maxSide} pixels (data.maxSide), received ${width} x ${height}`,
    );
  }
  if (width * height > maxPixels) {
    throw new BadImageError(
      path,
      `expected at most ${maxPixels} pixels, received ${width} x ${height}`,
    );
  }
  return header;
}

function badImage(path: string, error: unknown): BadImageError {
  if (error instanceof BadImageError) return error;
  const message = error instanceof Error ? error.message : String(error);
  // libvips keeps one error text per process: two threads that fail at once may leave one of them without.
  const isLost = message === "" || message === "Unknown error";
  const reason = isLost ? "cannot be decoded" : message.trim().replaceAll("\n", "; ");
  return new BadImageError(path, reason, { cause: error });
}
