/** `npm test [-- options of vitest]`: the setup, then unit, numerics and system tests. Ends with `N passed, N failed`. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endOnSignal, stop } from "./command.mjs";
import { prepare, root } from "./prepare.mjs";

const args = process.argv.slice(2);
const stopEndingOnSignal = endOnSignal();
try {
  await prepare([], { dataset: true, tests: true });
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  stop(3);
}
stopEndingOnSignal();

const folder = mkdtempSync(join(tmpdir(), "paddock-test-"));
const results = join(folder, "results.json");
const projects = args.includes("--project") ? [] : ["unit", "numerics", "system"];
const child = spawn(
  process.execPath,
  [
    join(root, "node_modules/vitest/vitest.mjs"),
    "run",
    ...["--config", "test/vitest.config.ts", "--reporter", "default"],
    ...["--reporter", "json", `--outputFile.json=${results}`],
    ...projects.flatMap((name) => ["--project", name]),
    ...args,
  ],
  { cwd: root, stdio: "inherit" },
);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code) => {
  process.exitCode = code ?? 1;
  process.stdout.write(`${summary()}\n`);
  rmSync(folder, { recursive: true, force: true });
});

/** One line. A test file that could not even be loaded counts as one failure. */
function summary() {
  try {
    const report = JSON.parse(readFileSync(results, "utf8"));
    const unloadable = report.testResults.filter(
      (file) => file.status === "failed" && file.assertionResults.length === 0,
    ).length;
    return `${report.numPassedTests} passed, ${report.numFailedTests + unloadable} failed`;
  } catch {
    return "0 passed, 1 failed";
  }
}
