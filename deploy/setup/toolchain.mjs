/** A C++ compiler and Python's virtual environments: what the native engines are made with. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { environment, run, tail, which } from "./command.mjs";

/** The C++ compiler as CXX or PATH have it, or undefined. */
export function compiler() {
  return which(...(environment.CXX ? [environment.CXX] : []), "c++", "g++", "clang++");
}

/** Debian packages that are still needed for a compiler. */
export function compilerPackages() {
  return compiler() ? [] : ["g++"];
}

/** Debian packages that are still needed for `makeVenv`. */
export async function pythonPackages() {
  const { code } = await run("python3", ["-c", "import venv, ensurepip"]);
  return code === 0 ? [] : ["python3", "python3-venv", "python3-pip"];
}

/** A virtual environment in `folder`. Returns undefined, or why it failed; then nothing is left there. */
export async function makeVenv(folder) {
  if (!which("python3"))
    return "python3 is not on PATH; install python3, python3-venv and python3-pip";
  const { code, output } = await run("python3", ["-m", "venv", folder]);
  if (code === 0) return undefined;
  rmSync(folder, { recursive: true, force: true });
  return `python3 -m venv failed: ${tail(output, 2)}`;
}

/** The Python of a virtual environment, whether or not there is one. */
export function venvPython(folder) {
  return join(folder, "bin", "python3");
}
