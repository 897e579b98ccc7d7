/**
 * Module hooks that let Node 20 import `.ts` run specs: types are erased by the TypeScript compiler, file by file, and a
 * relative import of `./x.js` finds `./x.ts`. Runs in Node's loader thread (node:module register).
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { LoadHook, ResolveHook } from "node:module";
import { fileURLToPath } from "node:url";

/** Where a specifier leads: Node's answer, or the `.ts` beside a `.js` that does not exist. */
export const resolve: ResolveHook = (specifier, context, nextResolve) => {
  if (context.parentURL?.endsWith(".ts") && /^\.{1,2}\/.*\.js$/.test(specifier)) {
    const url = new URL(specifier.replace(/\.js$/, ".ts"), context.parentURL);
    if (existsSync(fileURLToPath(url))) return { url: url.href, shortCircuit: true };
  }
  return nextResolve(specifier, context);
};

/** The source of a module, its types erased when it is TypeScript. */
export const load: LoadHook = async (url, context, nextLoad) => {
  if (!url.startsWith("file:") || !url.endsWith(".ts")) return nextLoad(url, context);
  const { transpileModule, ModuleKind, ScriptTarget } = await import("typescript");
  const source = await readFile(fileURLToPath(url), "utf8");
  const { outputText } = transpileModule(source, {
    compilerOptions: { module: ModuleKind.ESNext, target: ScriptTarget.ES2023 },
  });
  return { format: "module", source: outputText, shortCircuit: true };
};
