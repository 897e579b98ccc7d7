/** `visuals.json` (what the teacher sees in some held-out images) as PNG data URIs. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

/** 8-bit values row by row, as base64. */
interface RawPicture {
  readonly width: number;
  readonly height: number;
  readonly data: string;
}

interface VisualsFile {
  readonly images: readonly {
    readonly label: string;
    readonly source: RawPicture & { readonly channels: number };
    /** RGB. */
    readonly pca: RawPicture;
    /** Grey, one per attention head of the last block. */
    readonly attention: readonly RawPicture[];
  }[];
}

/** One image: data URIs of its source, its PCA colours and its attention maps. */
export interface Visual {
  readonly label: string;
  readonly source: string;
  readonly pca: string;
  readonly attention: readonly string[];
}

/** Side of an enlarged picture, in pixels, at least: patches are shown as squares, not smoothed away. */
const shownSide = 144;

/** The pictures of a run; none when it has not written any. */
export async function readVisuals(runDir: string): Promise<Visual[]> {
  const text = await readFile(join(runDir, "visuals.json"), "utf8").catch(() => undefined);
  if (text === undefined) return [];
  const { images } = JSON.parse(text) as VisualsFile;
  return Promise.all(
    images.map(async ({ label, source, pca, attention }) => ({
      label,
      source: await pngUri(source, source.channels),
      pca: await pngUri(pca, 3),
      attention: await Promise.all(attention.map((map) => pngUri(map, 1))),
    })),
  );
}

async function pngUri({ width, height, data }: RawPicture, channels: number): Promise<string> {
  const factor = Math.max(1, Math.ceil(shownSide / width));
  const raw = { width, height, channels: channels === 1 ? 1 : 3 } as const;
  const { default: sharp } = await import("sharp");
  const png = await sharp(Buffer.from(data, "base64"), { raw })
    .resize(width * factor, height * factor, { kernel: "nearest" })
    .png({ compressionLevel: 9, palette: channels === 1 })
    .toBuffer();
  return `data:image/png;base64,${png.toString("base64")}`;
}
