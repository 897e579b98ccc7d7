// biome-ignore-all lint/style/noProcessEnv: a script, its environment is its input
/**
 * `npm run test:asan`: builds the addon with AddressSanitizer into build/asan and runs this package's tests with it, from a copy of
 * the sources, so that the addon in use stays what it is. libtorch and Node are not instrumented: what is seen are the addon's own
 * reads and writes, and everybody's heap. Leaks are not looked for, V8 has too many of its own.
 */
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { env, execPath } from "node:process";

const here = import.meta.dirname;
const asan = path.join(here, "build", "asan");
const copy = path.join(asan, "package");

function must(program, args, options = {}) {
  const { status, signal } = spawnSync(program, args, { stdio: "inherit", ...options });
  if (status === 0) return;
  process.stderr.write(`test:asan: ${program} ended with ${signal ?? `code ${status}`}\n`);
  process.exit(status ?? 1);
}

must(execPath, [path.join(here, "build.mjs"), "--sanitize", "--strict"]);
fs.rmSync(copy, { recursive: true, force: true });
fs.cpSync(path.join(here, "src"), path.join(copy, "src"), { recursive: true });
fs.rmSync(path.join(copy, "src", "prebuilt.test.ts")); // it packs this folder, not the copy
fs.cpSync(path.join(here, "package.json"), path.join(copy, "package.json"));
fs.mkdirSync(path.join(copy, "build"));
for (const file of ["paddock_engine.node", "stamp.json"]) {
  fs.copyFileSync(path.join(asan, file), path.join(copy, "build", file));
}
// Several times slower than without.
const config = `export default { test: { pool: "forks", maxWorkers: 1, testTimeout: 600_000, hookTimeout: 600_000 } };\n`;
fs.writeFileSync(path.join(copy, "vitest.config.mjs"), config);

const compiler = env.CXX ?? "c++";
const library = spawnSync(compiler, ["-print-file-name=libasan.so"], { encoding: "utf8" }).stdout;
const vitest = path.join(here, "..", "..", "node_modules", "vitest", "vitest.mjs");
must(execPath, [vitest, "run", "--root", copy, ...process.argv.slice(2)], {
  env: {
    ...env,
    LD_PRELOAD: library.trim(),
    // An absurd request returns null, as malloc does; V8 and libtorch allocate and free across each other.
    ASAN_OPTIONS:
      "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096:alloc_dealloc_mismatch=0",
  },
});
process.stdout.write("test:asan: clean\n");
