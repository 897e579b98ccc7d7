// biome-ignore-all lint/style/noProcessEnv: a script, its environment is its input
/**
 * Finds libtorch and builds the engine's addon into build/. Prints one line and succeeds where it cannot:
 * Paddock then runs on `wasm`. `--strict` makes that a failure, `--verbose` shows the compiler's output, `--sanitize` builds into
 * build/asan with AddressSanitizer (see test-asan.mjs). PADDOCK_PREBUILT, the path or URL of a tarball of package-addon.mjs, is
 * taken instead of compiling where it fits; its hash is PADDOCK_PREBUILT_SHA256 or lies beside it.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import * as os from "node:os";
import * as path from "node:path";
import { env } from "node:process";
import { fileURLToPath } from "node:url";
import { takePrebuilt, thisPlatform } from "./prebuilt.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const repository = path.join(here, "..", "..");
const sanitize = process.argv.includes("--sanitize");
const buildDir = path.join(here, "build", ...(sanitize ? ["asan"] : []));
const addonPath = path.join(buildDir, "paddock_engine.node");
const stampPath = path.join(buildDir, "stamp.json");
const verbose = process.argv.includes("--verbose");

/** A reason not to build that is no bug: told in one line. */
class Unavailable extends Error {}

async function main() {
  const torch = findTorch();
  if (torch === undefined) {
    throw new Unavailable(
      "no libtorch found (looked at LIBTORCH, PADDOCK_PYTHON or python3, .torch/, libtorch-dev)",
    );
  }
  const plan = planBuild(torch);
  if (fs.existsSync(addonPath) && readText(stampPath) === plan.stamp) {
    say(`addon is up to date (libtorch ${torch.version} from ${torch.from})`);
    return;
  }
  const prebuilt = sanitize ? undefined : env.PADDOCK_PREBUILT;
  if (prebuilt) {
    const expected = env.PADDOCK_PREBUILT_SHA256;
    const reason = await takePrebuilt(prebuilt, expected, { torch, ...plan }, buildDir);
    if (reason === undefined) {
      say(`prebuilt addon taken from ${prebuilt} (libtorch ${torch.version} from ${torch.from})`);
      return;
    }
    say(`prebuilt addon not taken from ${prebuilt}: ${reason}`);
  }
  requireTools();
  const startedAt = Date.now();
  build(plan);
  const seconds = ((Date.now() - startedAt) / 1000).toFixed(0);
  say(`addon built in ${seconds} s against libtorch ${torch.version} from ${torch.from}`);
}

// --- libtorch ------------------------------------------------------------------------------------------

function findTorch() {
  const given = env.LIBTORCH;
  if (given) {
    const found = torchAt(given, "LIBTORCH") ?? torchAt(path.join(given, "torch"), "LIBTORCH");
    if (found === undefined)
      throw new Unavailable(`LIBTORCH=${given} holds no include/ and lib/ of libtorch`);
    return found;
  }
  return (
    torchOfPython(env.PADDOCK_PYTHON ?? "python3") ??
    torchOfPython(path.join(repository, ".torch", "bin", "python")) ??
    torchOfDebian()
  );
}

function torchOfPython(python) {
  // find_spec instead of an import: 30 ms instead of seconds.
  const script =
    "import importlib.util as u; s=u.find_spec('torch'); print(list(s.submodule_search_locations)[0] if s else '')";
  const run = spawnSync(python, ["-c", script], { encoding: "utf8" });
  const root = run.status === 0 ? run.stdout.trim() : "";
  return root === "" ? undefined : torchAt(root, python);
}

function torchAt(root, from) {
  const complete = ["include/ATen/ATen.h", "lib/libtorch_cpu.so", "lib/libc10.so"].every((file) =>
    fs.existsSync(path.join(root, file)),
  );
  if (!complete) return undefined;
  const cmake = readText(path.join(root, "share/cmake/Torch/TorchConfig.cmake")) ?? "";
  return {
    root: path.resolve(root),
    from,
    version: versionAt(path.join(root, "include")) ?? "2.0",
    abi: /GLIBCXX_USE_CXX11_ABI=0/.test(cmake) ? "0" : "1",
  };
}

function torchOfDebian() {
  const version = versionAt("/usr/include");
  return version && { root: "system", from: "libtorch-dev", version, abi: "1" };
}

function versionAt(include) {
  for (const header of [
    "torch/headeronly/version.h",
    "torch/csrc/api/include/torch/version.h",
    "torch/version.h",
  ]) {
    const text = readText(path.join(include, header));
    const major = text?.match(/TORCH_VERSION_MAJOR (\d+)/)?.[1];
    const minor = text?.match(/TORCH_VERSION_MINOR (\d+)/)?.[1];
    const patch = text?.match(/TORCH_VERSION_PATCH (\d+)/)?.[1];
    if (major && minor) return `${major}.${minor}.${patch ?? 0}`;
  }
  return undefined;
}

// --- what to build -------------------------------------------------------------------------------------

function planBuild(torch) {
  const nodeApi = nodeApiHeaders();
  const flags = cpuFlags();
  const [major, minor] = torch.version.split(".").map(Number);
  const defines = {
    PADDOCK_TORCH: torch.root,
    PADDOCK_TORCH_MINOR: String(major * 100 + minor),
    PADDOCK_NODE_API: nodeApi,
    PADDOCK_CPU_FLAGS: flags.join(";"),
    PADDOCK_ABI: torch.abi,
    ...(sanitize ? { PADDOCK_SANITIZE: "address" } : {}),
  };
  const sources = hashSources();
  const platform = thisPlatform();
  const stamp = JSON.stringify({ platform, torch, defines, sources }, undefined, 2);
  return { defines, flags, sources, stamp };
}

function nodeApiHeaders() {
  try {
    return createRequire(import.meta.url)("node-api-headers").include_dir;
  } catch (error) {
    throw new Unavailable("node-api-headers is not installed; run npm install", { cause: error });
  }
}

/** Instruction sets of this machine, by the compiler's names. */
function cpuFlags() {
  if (os.arch() !== "x64") return [];
  const line = (readText("/proc/cpuinfo") ?? "").match(/^flags\s*:(.*)$/m)?.[1] ?? "";
  const has = new Set(line.trim().split(/\s+/));
  return ["avx2", "fma", "f16c"].every((set) => has.has(set)) ? ["-mavx2", "-mfma", "-mf16c"] : [];
}

function hashSources() {
  const native = path.join(here, "native");
  const files = fs
    .readdirSync(native)
    .sort()
    .map((file) => path.join(native, file));
  const hash = createHash("sha256");
  for (const file of [path.join(here, "CMakeLists.txt"), ...files]) {
    hash.update(path.basename(file)).update(fs.readFileSync(file));
  }
  return hash.digest("hex");
}

// --- building ------------------------------------------------------------------------------------------

function requireTools() {
  const has = (tool) => spawnSync(tool, ["--version"], { stdio: "ignore" }).status === 0;
  if (!has("cmake")) throw new Unavailable("cmake is not installed");
  if (![env.CXX, "c++", "g++", "clang++"].some((tool) => tool && has(tool))) {
    throw new Unavailable("no C++ compiler is installed");
  }
}

function build({ defines, stamp }) {
  const work = path.join(buildDir, "cmake");
  fs.mkdirSync(work, { recursive: true });
  fs.rmSync(path.join(work, "CMakeCache.txt"), { force: true }); // it remembers another libtorch's files
  const args = Object.entries(defines).map(([name, value]) => `-D${name}=${value}`);
  cmake(["-S", here, "-B", work, ...args]);
  cmake(["--build", work, "--parallel", String(jobs())]);
  // Links of a prebuilt addon that was here: it would find its libtorch, not ours.
  for (const link of ["torch", "torch.libs"]) fs.rmSync(path.join(buildDir, link), { force: true });
  // A rename replaces the file for later loads and leaves processes that mapped the old one alone.
  const fresh = `${addonPath}.${process.pid}`;
  fs.copyFileSync(path.join(work, "paddock_engine.node"), fresh);
  fs.renameSync(fresh, addonPath);
  fs.writeFileSync(stampPath, stamp);
}

/** A compiler job takes up to 1.5 GB with libtorch's headers. */
function jobs() {
  const byMemory = Math.floor(os.freemem() / 1.5e9);
  return Math.max(1, Math.min(os.availableParallelism(), byMemory));
}

function cmake(args) {
  const run = spawnSync("cmake", args, { encoding: "utf8", stdio: verbose ? "inherit" : "pipe" });
  if (run.status === 0) return;
  const log = path.join(buildDir, "build.log");
  const output = `${run.stdout ?? ""}\n${run.stderr ?? ""}`;
  fs.writeFileSync(log, output);
  const reason = output
    .split("\n")
    .find((line) => /error/i.test(line))
    ?.trim();
  throw new Unavailable(
    `the build failed (${reason ?? `cmake exited with ${run.status}`}); see ${log}`,
  );
}

function readText(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

function say(line) {
  process.stdout.write(`engine: ${line}\n`);
}

try {
  await main();
} catch (error) {
  const reason = error instanceof Unavailable ? error.message : (error.stack ?? String(error));
  say(`no torch addon, wasm will be used: ${reason}`);
  if (process.argv.includes("--strict")) process.exitCode = 1;
}
