/**
 * TensorFlow's C++ library, for the `tensorflow` engine. Looked for in this order: LIBTENSORFLOW, the tensorflow of PADDOCK_PYTHON or python3,
 * `.tensorflow/` (ours); otherwise pip installs it there: `tensorflow[and-cuda]` where there is an NVIDIA driver, else the
 * build without CUDA.
 */
import { existsSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { environment, run, tail, which } from "./command.mjs";
import { say, timed } from "./log.mjs";
import { makeVenv, venvPython } from "./toolchain.mjs";

const wanted = "2.21.0";

// Does not import tensorflow: that takes seconds.
const locate = `
import importlib.util
spec = importlib.util.find_spec("tensorflow")
print(list(spec.submodule_search_locations)[0] if spec and spec.submodule_search_locations else "")
`;

/** Folder of the virtual environment, which holds the npm packages too. */
export const tensorflowFolder = (root) => join(root, ".tensorflow");

/**
 * Finds TensorFlow, or undefined: {include, libraries: folder, names: [files to link]}. Throws if LIBTENSORFLOW names a
 * folder that has none.
 */
export async function findTensorflow(root) {
  const given = environment.LIBTENSORFLOW;
  if (given) {
    const found = tensorflowAt(resolve(given)) ?? tensorflowAt(join(resolve(given), "tensorflow"));
    if (found) return found;
    throw new Error(
      `LIBTENSORFLOW: expected include/ and libtensorflow_cc.so.2 or libtensorflow.so.2 in ${given}, or its lib/`,
    );
  }
  const ours = venvPython(tensorflowFolder(root));
  for (const python of [environment.PADDOCK_PYTHON ?? "python3", ours]) {
    const { code, output } = await run(python, ["-c", locate]);
    const found = code === 0 && output.trim() !== "" && tensorflowAt(output.trim());
    if (found) return found;
  }
  return undefined;
}

/** As `findTensorflow`, installing it if there is none. Throws with the reason when that fails. */
export async function installTensorflow(root) {
  const found = await findTensorflow(root);
  if (found) {
    say("library", `found: ${found.libraries}`);
    return found;
  }
  const folder = tensorflowFolder(root);
  const failure = await makeVenv(folder);
  if (failure) throw new Error(failure);
  const packages = pipPackages();
  await timed("library", `pip install ${packages.at(-1)} into .tensorflow/`, async () => {
    const options = ["--no-input", "--disable-pip-version-check"];
    const { code, output } = await run(venvPython(folder), [
      ...["-m", "pip", "install", ...options, ...packages],
    ]);
    if (code === 0) return;
    rmSync(folder, { recursive: true, force: true });
    throw new Error(`pip failed: ${tail(output, 2)}`);
  });
  const installed = await findTensorflow(root);
  if (!installed) throw new Error(`pip's tensorflow in ${folder} has no C++ library`);
  return installed;
}

/** The library alone needs none of the Python packages that TensorFlow depends on, but those that bring CUDA. */
function pipPackages() {
  if (which("nvidia-smi")) return [`tensorflow[and-cuda]==${wanted}`];
  // The build without CUDA has a name of its own where the other would bring CUDA.
  const name = process.arch === "x64" ? "tensorflow-cpu" : "tensorflow";
  return ["--no-deps", `${name}==${wanted}`];
}

/** pip's package has the library in its root, TensorFlow's C release in lib/. */
function tensorflowAt(folder) {
  const include = join(folder, "include");
  if (!existsSync(join(include, "tensorflow", "c", "eager", "c_api.h"))) return undefined;
  for (const libraries of [folder, join(folder, "lib")]) {
    for (const main of ["libtensorflow_cc.so.2", "libtensorflow.so.2"]) {
      const names = [main, "libtensorflow_framework.so.2"];
      if (names.every((name) => existsSync(join(libraries, name))))
        return { include, libraries, names };
    }
  }
  return undefined;
}
