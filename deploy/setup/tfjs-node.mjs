/**
 * `@tensorflow/tfjs-node` with an addon of our own making. Its install script would fetch TensorFlow 2.9.1 (CUDA 11.2); its sources use
 * TensorFlow's C interface only and compile against any later one. Kept in `.tensorflow/node`, outside of the lock file.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { must, run, tail } from "./command.mjs";
import { say, timed } from "./log.mjs";
import { npm } from "./node-modules.mjs";
import { tensorflowFolder } from "./tensorflow.mjs";
import { compiler } from "./toolchain.mjs";

/** Must be the version of Paddock's @tensorflow/tfjs-core: they share one engine object. */
const version = "4.22.0";

/** Installs the package's JavaScript and C++ sources, without its install script. Returns its folder. */
export async function installTfjsNode(root) {
  const folder = join(tensorflowFolder(root), "node");
  const installed = join(folder, "node_modules", "@tensorflow", "tfjs-node");
  const done = join(folder, "node_modules", ".package-lock.json"); // npm writes it last
  if (existsSync(done) && readVersion(installed) === version) {
    say("npm", `@tensorflow/tfjs-node ${version} is there`);
    return installed;
  }
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), `{ "private": true }\n`);
  const options = ["--ignore-scripts", "--save-exact", "--no-audit", "--no-fund"];
  await timed("npm", `npm install @tensorflow/tfjs-node@${version} into .tensorflow/node`, () =>
    npm(["install", ...options, `@tensorflow/tfjs-node@${version}`], folder),
  );
  return installed;
}

function readVersion(folder) {
  const manifest = join(folder, "package.json");
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")).version : undefined;
}

/** Compiles the addon against `tensorflow` (of findTensorflow); nothing to do if that was done. Throws with the reason. */
export async function buildTfjsNode(root, folder, tensorflow) {
  const target = join(folder, "lib", "napi-v8");
  const addon = join(target, "tfjs_binding.node");
  const stamp = join(target, "stamp.json");
  const wanted = JSON.stringify({ version, tensorflow });
  if (existsSync(addon) && existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) {
    say("native", "the addon is up to date");
    return;
  }
  const program = compiler();
  if (!program) throw new Error("no C++ compiler is installed; install g++");
  mkdirSync(target, { recursive: true });
  const fresh = `${addon}.${process.pid}`;
  const sources = ["tfjs_backend.cc", "tfjs_binding.cc"].map((name) =>
    join(folder, "binding", name),
  );
  const nodeApi = createRequire(join(root, "packages/engine/package.json"))("node-api-headers");
  const include = [nodeApi.include_dir, tensorflow.include];
  await timed("native", "compiling tfjs-node's addon", () =>
    must(program, [
      ...["-std=c++17", "-O2", "-fPIC", "-shared", "-DNAPI_VERSION=8"],
      ...include.map((path) => `-I${path}`),
      ...sources,
      ...[`-L${tensorflow.libraries}`, `-Wl,-rpath,${tensorflow.libraries}`],
      ...tensorflow.names.map((name) => `-l:${name}`),
      ...["-o", fresh],
    ]),
  );
  renameSync(fresh, addon);
  writeFileSync(stamp, wanted);
}

/** Starts the engine once, the way a worker does. Returns what it says of itself; throws if it does not compute. */
export async function tryTensorflow(root) {
  const index = JSON.stringify(join(root, "packages", "engine", "dist", "index.js"));
  const script = `
    const { openEngine, threadEnvironment } = await import(${index});
    Object.assign(process.env, threadEnvironment(1));
    const engine = await openEngine({ name: "tensorflow", threads: 1 });
    const six = engine.tensorFromFlat(Float32Array.of(1, 2, 3));
    const read = new Float32Array(3);
    engine.readInto(six.add(six), read);
    if (read.join() !== "2,4,6") throw new Error("1 + 1 is " + read[0]);
    console.log(engine.why);
  `;
  const { code, output } = await run(process.execPath, ["--input-type=module", "-e", script]);
  if (code !== 0) throw new Error(`the tensorflow engine does not start:\n${tail(output, 5)}`);
  return tail(output, 1);
}
