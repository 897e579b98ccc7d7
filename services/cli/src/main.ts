/** Composition root of `paddock`: the only file that reads the process's arguments and environment. */
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

// A reader that went away (`paddock ... | head`) is no failure of the run.
process.stdout.on("error", () => undefined);

process.exit(await runCli(process.argv.slice(2), io));
