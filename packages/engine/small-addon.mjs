/** Builds an addon that needs no libtorch: with CMake, into build/, and again only when its sources or Node have changed. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import * as path from "node:path";

const here = import.meta.dirname;
const buildDir = path.join(here, "build");

const settings = [
  "-DCMAKE_BUILD_TYPE=Release",
  ...["-DCMAKE_CXX_STANDARD=17", "-DCMAKE_CXX_STANDARD_REQUIRED=ON", "-DCMAKE_CXX_EXTENSIONS=OFF"],
];

/** A reason not to build that is no bug: told in one line. */
class Unavailable extends Error {}

/**
 * Prints one line and succeeds where it cannot; `--strict` makes that a failure.
 * @param addon {name: of the folder of its sources, and of paddock_<name>.node; without: what happens when there is none;
 * explain: the reason for a known failure, by the output of CMake}
 */
export function buildSmallAddon({ name, without, explain = () => undefined }) {
  const say = (line) => process.stdout.write(`${name}: ${line}\n`);
  try {
    say(build(name, explain));
  } catch (error) {
    const reason = error instanceof Unavailable ? error.message : (error.stack ?? String(error));
    say(`no addon, ${without}: ${reason}`);
    if (process.argv.includes("--strict")) process.exitCode = 1;
  }
}

function build(name, explain) {
  const sources = path.join(here, name);
  const work = path.join(buildDir, name);
  const addonPath = path.join(buildDir, `paddock_${name}.node`);
  const stampPath = path.join(buildDir, `${name}-stamp.json`);
  const stamp = JSON.stringify({ sources: hashSources(sources), node: process.versions.modules });
  if (fs.existsSync(addonPath) && readText(stampPath) === stamp) return "addon is up to date";
  const start = Date.now();
  fs.mkdirSync(work, { recursive: true });
  fs.rmSync(path.join(work, "CMakeCache.txt"), { force: true });
  const nodeApi = createRequire(import.meta.url)("node-api-headers").include_dir;
  const cmake = (args) => runCmake(args, name, explain);
  cmake(["-S", sources, "-B", work, `-DPADDOCK_NODE_API=${nodeApi}`, ...settings]);
  cmake(["--build", work]);
  // A rename replaces the file for later loads and leaves processes that mapped the old one alone.
  const fresh = `${addonPath}.${process.pid}`;
  fs.copyFileSync(path.join(work, path.basename(addonPath)), fresh);
  fs.renameSync(fresh, addonPath);
  fs.writeFileSync(stampPath, stamp);
  return `addon built in ${((Date.now() - start) / 1000).toFixed(0)} s`;
}

function hashSources(folder) {
  const hash = createHash("sha256");
  for (const file of fs.readdirSync(folder).sort()) {
    hash.update(file).update(fs.readFileSync(path.join(folder, file)));
  }
  return hash.digest("hex");
}

function runCmake(args, name, explain) {
  const { status, error, stdout, stderr } = spawnSync("cmake", args, { encoding: "utf8" });
  if (status === 0) return;
  if (error) throw new Unavailable("cmake is not installed");
  const output = `${stdout}\n${stderr}`;
  const known = /No CMAKE_CXX_COMPILER/.test(output)
    ? "no C++ compiler is installed"
    : explain(output);
  if (known !== undefined) throw new Unavailable(known);
  const log = path.join(buildDir, `${name}.log`);
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
