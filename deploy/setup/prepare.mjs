/** Everything between a fresh clone and a run. Steps that do not need each other run side by side; nothing asks a question. */
import { join } from "node:path";
import { canInstallPackages, installPackages } from "./apt.mjs";
import { buildNative, buildPages, compile } from "./build.mjs";
import { buildCollectives, collectivesPackages } from "./collectives.mjs";
import { which } from "./command.mjs";
import { datasetPackages, installDataset } from "./dataset.mjs";
import { installLibtorch, libtorchPackages } from "./libtorch.mjs";
import { say } from "./log.mjs";
import { checkNode, installNodeModules } from "./node-modules.mjs";
import { installRclone, rclonePackages } from "./rclone.mjs";
import { redisPackages, reportRedis } from "./redis.mjs";

export const root = join(import.meta.dirname, "..", "..");

/**
 * Prepares this clone. Returns the dataset's folder (undefined without `dataset`).
 * @param args the command line: `--redis` and `--engine wasm` spare what they make unnecessary
 * @param needs {dataset: fetch real images, tests: also compile the tests and install what they talk to}
 */
export async function prepare(args, { dataset, tests }) {
  checkNode();
  const wasmOnly = args.some((arg, i) => `${arg} ${args[i + 1]}` === "--engine wasm");
  const system = installSystem(args, { dataset, tests, wasmOnly });
  const modules = installNodeModules(root);
  const libtorch = wasmOnly ? Promise.resolve(false) : system.then(() => installLibtorch(root));
  const compiled = modules.then(() => compile(root, tests ? "." : "services/cli"));
  const [folder] = await Promise.all([
    Promise.all([system, modules]).then(() => (dataset ? installDataset(root) : undefined)),
    compiled,
    Promise.all([modules, libtorch]).then(([, found]) => (found ? buildNative(root) : undefined)),
    Promise.all([modules, libtorch]).then(() => (wasmOnly ? undefined : buildPages(root))),
    Promise.all([modules, system]).then(() => (wasmOnly ? undefined : buildCollectives(root))),
    system.then(() => reportRedis(args)),
    system.then(() => (tests ? installRclone(root) : undefined)),
  ]);
  return folder;
}

async function installSystem(args, { dataset, tests, wasmOnly }) {
  const packages = [
    ...(wasmOnly ? [] : [...(await libtorchPackages(root)), ...collectivesPackages()]),
    ...redisPackages(args),
    ...(dataset ? datasetPackages() : []),
    ...(tests && !which("prometheus") ? ["prometheus"] : []),
    ...(tests ? await rclonePackages(root) : []),
  ];
  if (packages.length === 0) return;
  if (!canInstallPackages()) {
    say("system", `going on without ${packages.join(", ")}: only root on Debian can install them`);
    return;
  }
  const failed = await installPackages(packages);
  if (failed.length > 0) say("system", `going on without ${failed.join(", ")}`);
}
