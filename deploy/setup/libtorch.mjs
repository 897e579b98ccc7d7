/**
 * libtorch for the fast engine. Looked for in this order: LIBTORCH, the torch of PADDOCK_PYTHON or python3, `.torch/` (ours), Debian's libtorch-dev;
 * otherwise pip installs it into the virtual environment `.torch/`. Without it training still runs, on the slow `wasm` engine.
 */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { environment, run, tail, which } from "./command.mjs";
import { say, timed } from "./log.mjs";
import { compiler, compilerPackages, makeVenv, pythonPackages, venvPython } from "./toolchain.mjs";

const wanted = "2.13.0";
const cpuIndex = "https://download.pytorch.org/whl/cpu";

// Does not import torch: that takes seconds.
const locate = `
import importlib.util, os
spec = importlib.util.find_spec("torch")
if spec and spec.submodule_search_locations:
    folder = spec.submodule_search_locations[0]
    if os.path.exists(os.path.join(folder, "lib", "libtorch_cpu.so")) or os.path.exists(os.path.join(folder, "lib", "libtorch_cpu.dylib")):
        print(folder)
`;

/** Where libtorch is, in words, or undefined. */
async function findLibtorch(root) {
  if (environment.LIBTORCH) return `LIBTORCH=${environment.LIBTORCH}`;
  for (const python of [
    environment.PADDOCK_PYTHON ?? "python3",
    venvPython(join(root, ".torch")),
  ]) {
    const { code, output } = await run(python, ["-c", locate]);
    if (code === 0 && output.trim() !== "") return output.trim();
  }
  return existsSync("/usr/include/torch/csrc/api/include/torch/torch.h")
    ? "libtorch-dev"
    : undefined;
}

/** Debian packages that are still needed to get libtorch and to build against it. */
export async function libtorchPackages(root) {
  const packages = compilerPackages();
  if (!which("cmake")) packages.push("cmake");
  if (!which("make", "ninja")) packages.push("make");
  if (!(await findLibtorch(root))) packages.push(...(await pythonPackages()));
  return packages;
}

/** Finds or installs libtorch. Returns whether there is one; says what it did either way. */
export async function installLibtorch(root) {
  const found = await findLibtorch(root);
  if (found) {
    say("libtorch", `found: ${found}`);
    return true;
  }
  if (!compiler()) {
    say(
      "libtorch",
      "not installed, training will use the slow wasm engine: no C++ compiler to build with; install g++",
    );
    return false;
  }
  const failure = await timed("libtorch", `pip install torch==${wanted} into .torch/`, () =>
    pipInstall(root),
  );
  if (failure === undefined) return true;
  say("libtorch", `not installed, training will use the slow wasm engine: ${failure}`);
  return false;
}

/** Returns undefined, or why it failed. A half-made environment is removed. */
async function pipInstall(root) {
  const folder = join(root, ".torch");
  const failure = await makeVenv(folder);
  if (failure) return failure;
  if (!which("cmake")) await run(venvPython(folder), ["-m", "pip", "install", "cmake", "ninja"]);
  let last = "";
  for (const source of sources()) {
    const args = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", ...source];
    const { code, output } = await run(venvPython(folder), args);
    if (code === 0) return undefined;
    last = tail(output, 2);
  }
  rmSync(folder, { recursive: true, force: true });
  return `pip failed: ${last}`;
}

/**
 * Where pip looks, best first. PyPI's Linux build needs 3 GB of CUDA libraries: right with an NVIDIA driver, else the last
 * resort after the CPU build (190 MB), from the configured indexes and then from PyTorch's own. The CPU build's library needs
 * none of the package's Python dependencies.
 */
function sources() {
  if (which("nvidia-smi") || process.platform !== "linux") return [[`torch==${wanted}`]];
  const cpuBuild = ["--no-deps", `torch==${wanted}+cpu`];
  return [
    cpuBuild,
    ["--retries", "1", "--timeout", "20", "--index-url", cpuIndex, ...cpuBuild],
    [`torch==${wanted}`],
  ];
}
