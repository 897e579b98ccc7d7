/** Compiles the TypeScript workspaces, and the native parts where that is possible. */
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
export function buildNative(root) {
  return runBuild(root, "native", "build.mjs");
}

/** Builds what asks for huge pages for checkpoints, if it is stale. Without it they are slower, and nothing else. */
export function buildPages(root) {
  return runBuild(root, "pages", "build-pages.mjs");
}

async function runBuild(root, step, script) {
  // pip may have brought a cmake for a machine that has none.
  const path = [environment.PATH ?? "", join(root, ".torch", "bin")].join(delimiter);
  const { output } = await timed(step, `packages/engine/${script}`, () =>
    run(process.execPath, [join(root, "packages", "engine", script)], {
      cwd: root,
      extraEnv: { PATH: path },
    }),
  );
  say(step, tail(output, 1));
}
