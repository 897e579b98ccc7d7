/**
 * Module hooks that let Node load TF.js's published tests: they are ES modules written for a bundler (imports without file
 * extensions, `require` in between), and must meet the same copy of TF.js as the engine does.
 */
import { readFile } from "node:fs/promises";
import type {
  LoadFnOutput,
  LoadHookContext,
  ResolveFnOutput,
  ResolveHookContext,
} from "node:module";
import { fileURLToPath } from "node:url";

/** URL of the folder with TF.js's ES modules, the tests among them. */
let core = "";

export function initialize(data: { readonly core: string }): void {
  core = data.core;
}

/** `require` for the few files that call it; jasmine is the one that runs, not another copy. */
const requireForModules = `
import { createRequire as paddockCreateRequire } from "node:module";
const paddockRequire = paddockCreateRequire(import.meta.url);
const require = Object.assign(
  (name) => (name.startsWith("jasmine-core/") ? { core: () => globalThis.jasmine } : paddockRequire(name)),
  paddockRequire,
);
`;

/** Relative imports get their extension; everybody's TF.js is the ES modules beside the tests. */
export async function resolve(
  specifier: string,
  context: ResolveHookContext,
  next: (specifier: string, context?: Partial<ResolveHookContext>) => Promise<ResolveFnOutput>,
): Promise<ResolveFnOutput> {
  if (specifier === "@tensorflow/tfjs-core") return found(`${core}index.js`);
  const isOfCore = context.parentURL?.startsWith(core) === true;
  const path = specifier.replace(/^@tensorflow\/tfjs-core\/dist\//, core);
  if (path === specifier && !(isOfCore && specifier.startsWith(".")))
    return next(specifier, context);
  const base = new URL(path, context.parentURL).href;
  const tries = [base, `${base}.js`, `${base}/index.js`].filter((url) => url.endsWith(".js"));
  for (const url of tries) {
    const exists = await readFile(fileURLToPath(url)).then(
      () => true,
      () => false,
    );
    if (exists) return found(url);
  }
  return next(specifier, context);
}

function found(url: string): ResolveFnOutput {
  return { url, format: "module", shortCircuit: true };
}

/** TF.js's ES modules as such (its package.json calls them CommonJS), with what a bundler would have added. */
export async function load(
  url: string,
  context: LoadHookContext,
  next: (url: string, context?: Partial<LoadHookContext>) => Promise<LoadFnOutput>,
): Promise<LoadFnOutput> {
  if (!url.startsWith(core) || context.format !== "module") return next(url, context);
  const text = await readFile(fileURLToPath(url), "utf8");
  const source = text
    // The map holds the whole source again, in base64.
    .replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n")
    // A CommonJS package whose functions Node does not see as named exports.
    .replace(/import \* as (\w+) from 'seedrandom'/, "import $1 from 'seedrandom'");
  return {
    format: "module",
    shortCircuit: true,
    source: /\brequire\b/.test(source) ? requireForModules + source : source,
  };
}
