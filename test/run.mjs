// biome-ignore-all lint/style/noProcessEnv: a script, its environment is its input
/**
 * `node test/run.mjs <compiled file below test/dist> [options]`: builds what is stale, then starts one of this folder's commands
 * in a process whose thread counts are set before any library is loaded. `--threads N` (default 1); the benches' peers find their
 * python by `--python` or PADDOCK_PYTHON. `--help` prints the comment at a command's head, where it has no help of its own. Whatever a
 * command has started ends with it, also with Ctrl-C.
 */
import { spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import * as path from "node:path";
import { env, execPath } from "node:process";
import { fileURLToPath } from "node:url";

const folder = path.dirname(fileURLToPath(import.meta.url));
const [entry = "", ...given] = process.argv.slice(2);

if (given.includes("--help")) {
  const source = readFileSync(path.join(folder, entry.replace(/\.js$/, ".ts")), "utf8");
  const [, head = ""] = /^\/\*\*(.*?)\*\//s.exec(source) ?? [];
  if (!source.includes("values.help")) {
    process.stdout.write(`${head.replace(/^[ ]*\*? ?/gm, "").trim()}\n`);
    process.exit(0);
  }
}
// On stderr: stdout may be JSON for a script.
const build = spawnSync("npx", ["tsc", "-b", "test"], {
  cwd: path.join(folder, ".."),
  stdio: ["ignore", 2, 2],
});
if (build.status !== 0) {
  process.stderr.write(`${entry}: the sources do not compile, see above\n`);
  process.exit(3);
}
const { threadEnvironment } = await import("@paddock/engine");
const at = given.indexOf("--threads");
const threads = at < 0 ? 1 : Number(given[at + 1]);
const takesPython = entry.startsWith("bench/") && !given.includes("--python");
const python = takesPython && env.PADDOCK_PYTHON ? ["--python", env.PADDOCK_PYTHON] : [];
const child = spawn(execPath, [path.join(folder, "dist", entry), ...given, ...python], {
  stdio: "inherit",
  env: { ...env, ...threadEnvironment(threads > 0 ? threads : 1) },
  // A process group of its own, with everything that it starts.
  detached: true,
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => {
  process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0);
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // Nobody is left.
  }
});
