/** `npm run setup:tensorflow`: makes the `tensorflow` engine, without a question. Takes a minute and 1.6 GB (with CUDA 7 GB). */
import { canInstallPackages, installPackages } from "./apt.mjs";
import { compile } from "./build.mjs";
import { endOnSignal, stop } from "./command.mjs";
import { say } from "./log.mjs";
import { checkNode, installNodeModules } from "./node-modules.mjs";
import { root } from "./prepare.mjs";
import { findTensorflow, installTensorflow } from "./tensorflow.mjs";
import { buildTfjsNode, installTfjsNode, tryTensorflow } from "./tfjs-node.mjs";
import { compilerPackages, pythonPackages } from "./toolchain.mjs";

endOnSignal();
try {
  if (process.platform !== "linux") throw new Error(`expected Linux, received ${process.platform}`);
  checkNode();
  await installSystem();
  // One after the other: the virtual environment has to be there before anything else is put into its folder.
  const tensorflow = await installTensorflow(root);
  const [folder] = await Promise.all([
    installTfjsNode(root),
    installNodeModules(root).then(() => compile(root, "packages/engine")),
  ]);
  await buildTfjsNode(root, folder, tensorflow);
  say("engine", await tryTensorflow(root));
  say("setup", "done: npx paddock train <spec> --engine tensorflow");
} catch (error) {
  process.stderr.write(`no tensorflow engine: ${error.message}\n`);
  stop(3);
}

async function installSystem() {
  const python = (await findTensorflow(root)) ? [] : await pythonPackages();
  const packages = [...compilerPackages(), ...python];
  if (packages.length === 0 || !canInstallPackages()) return; // what is missing is named where it is needed
  await installPackages(packages);
}
