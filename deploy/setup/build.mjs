/** Compiles the TypeScript workspaces, and the native engine where that is possible. */
import { delimiter, join } from "node:path";
import { environment, must, run, tail } from "./command.mjs";
import { say, timed } from "./log.mjs";

/** Compiles `project` ("." for everything) and what it needs: a few seconds when nothing changed. */
export function compile(root, project) {
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  return timed("compile", `tsc -b ${project}`, () =>
    must(process.execPath, [tsc, "-b", project], { cwd: root }),
  );
}

/** Builds the engine's addon if it is stale. What it cannot build it says in one line: training then runs on wasm. */
export async function buildNative(root) {
  const script = join(root, "packages", "engine", "build.mjs");
  // pip may have brought a cmake for a machine that has none.
  const path = [environment.PATH ?? "", join(root, ".torch", "bin")].join(delimiter);
  const { output } = await timed("native", "packages/engine/build.mjs", () =>
    run(process.execPath, [script], { cwd: root, extraEnv: { PATH: path } }),
  );
  say("native", tail(output, 1));
}
