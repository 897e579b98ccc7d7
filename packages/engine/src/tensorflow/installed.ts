/**
 * Which tfjs-node packages there are, and what each says of itself. Two TensorFlows do not fit into one process, so a
 * package is asked in a process of its own; a library that crashes there harms nobody.
 */
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import * as path from "node:path";
import { fileURLToPath } from "node:url";

export interface InstalledTensorflow {
  /** Folder of the package. */
  readonly path: string;
  /** In words, e.g. `@tensorflow/tfjs-node-gpu of node_modules`. */
  readonly name: string;
}

export type TensorflowAnswer =
  | { readonly kind: "works"; readonly version: string; readonly hasGpu: boolean }
  | { readonly kind: "fails"; readonly why: string };

/** What `npm run setup:tensorflow` makes. Its folder `lib` comes with the addon, at the end. */
const modules = fileURLToPath(
  new URL("../../../../.tensorflow/node/node_modules/", import.meta.url),
);
const setUp = path.join(modules, "@tensorflow", "tfjs-node");

/** Its start takes a second; a GPU's driver and libraries have been seen to take half a minute. */
const deadlineMs = 120_000;

/** Loads the package in a new process and asks for its TensorFlow's version and whether that sees a GPU. Takes 1 to 2 s. */
export function askTensorflow({ path }: InstalledTensorflow): TensorflowAnswer {
  const run = spawnSync(process.execPath, ["--input-type=commonjs", "-e", question, path], {
    encoding: "utf8",
    timeout: deadlineMs,
  });
  try {
    return JSON.parse(run.stdout.slice(run.stdout.lastIndexOf("\n") + 1));
  } catch {
    const end = run.signal ?? `exit code ${run.status}`;
    return { kind: "fails", why: `its process ended with ${end}` };
  }
}

/**
 * The package to use, undefined without any: of several the first that sees a GPU, else the first that works, else the
 * first. A single one is not asked: opening it shows what it is.
 */
export function chooseTensorflow(
  found: readonly InstalledTensorflow[] = installedTensorflows(),
): InstalledTensorflow | undefined {
  if (found.length < 2) return found[0];
  const answers = found.map((one) => ({ one, answer: askTensorflow(one) }));
  const works = answers.filter(({ answer }) => answer.kind === "works");
  const best = works.find(({ answer }) => answer.kind === "works" && answer.hasGpu) ?? works[0];
  return best?.one ?? found[0];
}

/** The packages of this clone: the one that was set up, then those that the user has installed, GPU first. */
function installedTensorflows(): readonly InstalledTensorflow[] {
  const require = createRequire(import.meta.url);
  const found = fs.existsSync(path.join(setUp, "lib"))
    ? [{ path: setUp, name: "@tensorflow/tfjs-node of npm run setup:tensorflow" }]
    : [];
  for (const name of ["@tensorflow/tfjs-node-gpu", "@tensorflow/tfjs-node"]) {
    try {
      const manifest = require.resolve(`${name}/package.json`);
      found.push({ path: path.dirname(manifest), name: `${name} of node_modules` });
    } catch {} // not installed
  }
  return found;
}

/** Node 23 took away a function that tfjs-node 4.22 calls (tfjs issue 8609). */
const polyfill = "require('node:util').isNullOrUndefined ??= (x) => x === null || x === undefined;";

const question = `
process.env.TF_CPP_MIN_LOG_LEVEL ??= "2";
let answer;
try {
  ${polyfill}
  const backend = require(process.argv[1]).backend();
  answer = { kind: "works", version: backend.binding.TF_Version, hasGpu: backend.isUsingGpuDevice };
} catch (error) {
  answer = { kind: "fails", why: String(error.message ?? error).split("\\n")[0] };
}
require("node:fs").writeSync(1, "\\n" + JSON.stringify(answer));
`;
