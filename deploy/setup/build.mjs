/** Compiles the TypeScript workspaces, and the native engine where that is possible. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { must, run, tail } from "./command.mjs";
import { say, timed } from "./log.mjs";

/** `tsc -b`: a few seconds when nothing changed. */
export function compile(root) {
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  return timed("compile", "tsc -b", () => must(process.execPath, [tsc, "-b"], { cwd: root }));
}

/** Builds the engine's addon. A failure is one line: training then runs on wasm. */
export async function buildNative(root) {
  const script = join(root, "packages", "engine", "build.mjs");
  if (!existsSync(script)) return;
  const { code, output } = await timed("native", "packages/engine/build.mjs", () =>
    run(process.execPath, [script], { cwd: root }),
  );
  if (code !== 0)
    say("native", `not built, training will use the slow wasm engine: ${tail(output, 3)}`);
  else say("native", tail(output, 1));
}
