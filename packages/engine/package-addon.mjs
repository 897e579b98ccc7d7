/**
 * `npm run package:addon [-- <folder>]`: the addon that is built, as a tarball for machines without a compiler, and its sha256.
 * Such a machine sets PADDOCK_PREBUILT to the tarball's path or URL; see build.mjs.
 */
import * as path from "node:path";
import { packAddon } from "./prebuilt.mjs";

const build = path.join(import.meta.dirname, "build");
const [folder = path.join(build, "prebuilt")] = process.argv.slice(2);
try {
  process.stdout.write(`${packAddon(build, path.resolve(folder))}\n`);
} catch (error) {
  process.stderr.write(`no addon to pack (npm run build:native): ${error.message}\n`);
  process.exitCode = 1;
}
