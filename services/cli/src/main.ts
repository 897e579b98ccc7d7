/** Composition root of `paddock`: the only file that reads the process's arguments and environment. */

import { hideSecret } from "@paddock/service-kit/client";
import type { Io } from "./io.js";
import { runCli } from "./program.js";

const io: Io = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  isTerminal: process.stdout.isTTY === true && process.env["TERM"] !== "dumb",
  columns: () => process.stdout.columns ?? 80,
  environment: process.env,
  cwd: process.cwd(),
};

// A password among the arguments: better in --redis-file, but at least not in the list of processes from here on.
const shown = process.argv
  .slice(2)
  .map((word) => (/:\/\/.*@/.test(word) ? hideSecret(word) : word));
if (shown.join() !== process.argv.slice(2).join()) process.title = `paddock ${shown.join(" ")}`;

// A reader that went away (`paddock ... | head`) is no failure of the run.
process.stdout.on("error", () => undefined);

const code = await runCli(process.argv.slice(2), io);
// A slow reader gets everything: what does not fit into its pipe yet would be lost with the process.
for (const stream of [process.stdout, process.stderr]) {
  await new Promise<unknown>((resolve) => stream.write("", resolve));
}
process.exit(code);
