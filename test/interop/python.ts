/** A Python environment with the pinned libraries, in .interop/ of the repository; made when it is not there. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import * as path from "node:path";

const root = path.resolve(import.meta.dirname, "../../..");
const requirements = path.join(root, "test/interop/requirements.txt");
const folder = path.join(root, ".interop");

/** The interpreter, or why there is none: no python, no pip, no network. */
export function findPython(given: string | undefined): { python: string } | { missing: string } {
  if (given !== undefined) return { python: given };
  const python = path.join(folder, "python/bin/python");
  const stamp = path.join(folder, "installed.txt");
  const wanted = readFileSync(requirements, "utf8");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return { python };
  mkdirSync(folder, { recursive: true });
  rmSync(path.join(folder, "python"), { recursive: true, force: true });
  process.stderr.write(
    `interop: installing torch, transformers and timm into ${folder} (about 1.5 GB)\n`,
  );
  const venv = path.join(folder, "python");
  const failure = run("python3", ["-m", "venv", venv]) ?? installAll(python, lines(wanted));
  if (failure !== undefined) return { missing: failure };
  writeFileSync(stamp, wanted);
  return { python };
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}

/** torch alone and exactly, so that nothing else chooses its build; then the others; then each line with flags of its own. */
function installAll(python: string, wanted: readonly string[]): string | undefined {
  const plain = wanted.filter((line) => !line.startsWith("--"));
  const steps = [
    plain.slice(0, 1),
    plain.slice(1),
    ...wanted.filter((line) => line.startsWith("--")).map((line) => line.split(" ")),
  ];
  for (const step of steps) {
    const failure = run(python, [
      "-m",
      "pip",
      "install",
      "--quiet",
      "--disable-pip-version-check",
      ...step,
    ]);
    if (failure !== undefined) return failure;
  }
  return undefined;
}

/** The last line of what it said when it failed. */
function run(command: string, args: readonly string[]): string | undefined {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
  if (status === 0) return undefined;
  const said = (stderr || stdout || "").trim().split("\n").at(-1);
  return `${command} ${args.slice(0, 4).join(" ")}: ${said || error?.message || `exit code ${status}`}`;
}
