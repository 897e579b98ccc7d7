/** `npm start [-- options of paddock train]`: from a fresh clone to a trained model and its report, without a question. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { endOnSignal, stop } from "./command.mjs";
import { say } from "./log.mjs";
import { prepare, root } from "./prepare.mjs";

const args = process.argv.slice(2);
const hasData = args.some((arg) => arg === "--data" || arg.startsWith("--data="));

const stopEndingOnSignal = endOnSignal();
let folder;
try {
  folder = await prepare(args, { dataset: !hasData, tests: false });
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  stop(3);
}
stopEndingOnSignal();

const train = [
  "train",
  "deploy/runs/fashion-mnist.yaml",
  ...(folder ? ["--data", folder] : []),
  ...args,
];
say("train", `npx paddock ${train.join(" ")}`);
const child = spawn(process.execPath, [join(root, "services/cli/bin/paddock.mjs"), ...train], {
  cwd: root,
  stdio: "inherit",
});
// The run drains by itself; `paddock` takes a terminal's Ctrl-C and our copy of it for one.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => {
  process.exitCode = code ?? (signal ? 4 : 0);
});
