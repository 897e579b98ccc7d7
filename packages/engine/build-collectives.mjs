/**
 * Builds the addon of the exchange `collective` into build/, against Debian's libgloo-dev or another Gloo that the compiler
 * finds. Prints one line and succeeds where it cannot: tensors then travel through Redis. `--strict` makes that a failure.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import * as path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const sources = path.join(here, "collectives");
const work = path.join(here, "build", "collectives");
const addonPath = path.join(here, "build", "paddock_collectives.node");
const stampPath = path.join(here, "build", "collectives-stamp.json");

/** A reason not to build that is no bug: told in one line. */
class Unavailable extends Error {}

function main() {
  const stamp = JSON.stringify({ sources: hashSources(), node: process.versions.modules });
  if (fs.existsSync(addonPath) && readText(stampPath) === stamp) {
    say("addon is up to date");
    return;
  }
  const start = Date.now();
  fs.mkdirSync(work, { recursive: true });
  fs.rmSync(path.join(work, "CMakeCache.txt"), { force: true });
  const nodeApi = createRequire(import.meta.url)("node-api-headers").include_dir;
  cmake(["-S", sources, "-B", work, `-DPADDOCK_NODE_API=${nodeApi}`, "-DCMAKE_BUILD_TYPE=Release"]);
  cmake(["--build", work]);
  // A rename replaces the file for later loads and leaves processes that mapped the old one alone.
  const fresh = `${addonPath}.${process.pid}`;
  fs.copyFileSync(path.join(work, "paddock_collectives.node"), fresh);
  fs.renameSync(fresh, addonPath);
  fs.writeFileSync(stampPath, stamp);
  say(`addon built in ${((Date.now() - start) / 1000).toFixed(0)} s`);
}

function hashSources() {
  const hash = createHash("sha256");
  for (const file of fs.readdirSync(sources).sort()) {
    hash.update(file).update(fs.readFileSync(path.join(sources, file)));
  }
  return hash.digest("hex");
}

function cmake(args) {
  const { status, error, stdout, stderr } = spawnSync("cmake", args, { encoding: "utf8" });
  if (status === 0) return;
  if (error) throw new Unavailable("cmake is not installed");
  const output = `${stdout}\n${stderr}`;
  if (/GLOO_(INCLUDE|LIBRARY)/.test(output)) {
    throw new Unavailable("Gloo is not installed (Debian: libgloo-dev)");
  }
  const log = path.join(here, "build", "collectives.log");
  fs.writeFileSync(log, output);
  const reason = output.split("\n").find((line) => /error/i.test(line));
  throw new Unavailable(`the build failed (${reason?.trim() ?? `cmake: ${status}`}); see ${log}`);
}

function readText(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

function say(line) {
  process.stdout.write(`collectives: ${line}\n`);
}

try {
  main();
} catch (error) {
  const reason = error instanceof Unavailable ? error.message : (error.stack ?? String(error));
  say(`no addon, exchange "collective" will use Redis: ${reason}`);
  if (process.argv.includes("--strict")) process.exitCode = 1;
}
