/** A decoded image, and the failure of one that cannot be decoded. */

/** 1: grey, 3: RGB. */
export type Channels = 1 | 3;

/** Pixels in memory: [height, width, channels], 8 bit. Owned by whoever loaded it; may be a view of shared memory, so never write to it. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly channels: Channels;
  readonly pixels: Uint8Array;
}

/** One image cannot be used. Never stops a run: the batch reports it and takes another image in its place. */
export class BadImageError extends Error {
  readonly path: string;
  readonly reason: string;

  constructor(path: string, reason: string, options?: ErrorOptions) {
    super(`${path}: ${reason}`, options);
    this.name = "BadImageError";
    this.path = path;
    this.reason = reason;
  }
}

/** Luma weights of ITU-R BT.601, as Pillow and torchvision use for grey. */
export const luma = { red: 0.299, green: 0.587, blue: 0.114 } as const;

/** The image with the wanted number of channels: itself, grey repeated, or the luma of RGB. */
export function withChannels(image: Image, channels: Channels): Image {
  if (image.channels === channels) return image;
  const size = image.width * image.height;
  const pixels = new Uint8Array(size * channels);
  const { pixels: source } = image;
  if (channels === 3) {
    for (let i = 0, o = 0; i < size; i++) {
      const grey = source[i] as number;
      pixels[o++] = grey;
      pixels[o++] = grey;
      pixels[o++] = grey;
    }
  } else {
    // Pillow's 16-bit integers for the same weights: the result equals Image.convert("L") exactly.
    for (let i = 0, s = 0; i < size; i++, s += 3) {
      const red = source[s] as number;
      const green = source[s + 1] as number;
      const blue = source[s + 2] as number;
      pixels[i] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
    }
  }
  return { width: image.width, height: image.height, channels, pixels };
}
