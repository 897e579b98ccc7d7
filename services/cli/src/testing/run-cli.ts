/** The command line inside a test's process. */
import type { Io } from "../io.js";
import { runCli } from "../program.js";

/** Runs `paddock` with these arguments in a folder: its exit code, and what it printed. */
export async function paddockIn(
  cwd: string,
  argv: readonly string[],
): Promise<{ code: number; out: string; err: string }> {
  const text = { out: "", err: "" };
  const io: Io = {
    out: (more) => {
      text.out += more;
    },
    err: (more) => {
      text.err += more;
    },
    isTerminal: false,
    columns: () => 80,
    environment: {},
    cwd,
  };
  return { code: await runCli(argv, io), ...text };
}
