/** `npm run setup`: everything a run needs, without the run. */
import { endOnSignal, stop } from "./command.mjs";
import { say } from "./log.mjs";
import { prepare } from "./prepare.mjs";

endOnSignal();
try {
  await prepare(process.argv.slice(2), { dataset: true, tests: false });
  say("setup", "done: npx paddock train deploy/runs/fashion-mnist.yaml");
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  stop(3);
}
