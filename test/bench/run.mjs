// biome-ignore-all lint/style/noProcessEnv: a script, its environment is its input
/**
 * `npm run bench -- [name] [options]`: builds what is stale, then starts the bench in a process whose thread counts are set
 * before any library is loaded. `--threads N` (default 1); the peers' python comes from `--python`, or PADDOCK_PYTHON.
 */
import { spawn, spawnSync } from "node:child_process";
import * as path from "node:path";
import { env, execPath } from "node:process";
import { fileURLToPath } from "node:url";

const repository = path.join(path.dirname(fileURLToPath(import.meta.url)), "..", "..");
const given = process.argv.slice(2);

const build = spawnSync("npx", ["tsc", "-b", "test"], { cwd: repository, stdio: "inherit" });
if (build.status !== 0) {
  process.stderr.write("bench: the sources do not compile, see above\n");
  process.exit(3);
}
const { threadEnvironment } = await import("@paddock/engine");
const at = given.indexOf("--threads");
const threads = at < 0 ? 1 : Number(given[at + 1]);
const python = env.PADDOCK_PYTHON && !given.includes("--python") ? [env.PADDOCK_PYTHON] : [];
const main = path.join(repository, "test", "dist", "bench", "main.js");
const child = spawn(execPath, [main, ...given, ...python.flatMap((file) => ["--python", file])], {
  stdio: "inherit",
  env: { ...env, ...threadEnvironment(threads > 0 ? threads : 1) },
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code) => {
  process.exitCode = code ?? 1;
});
