/** A child process that cannot outlive this one, however this one ends. */
import { type ChildProcess, spawn } from "node:child_process";

// The subshell reads our pipe, which the system closes when this process ends, even by SIGKILL; it then terminates the
// program, which has taken the shell's place and process id.
const script =
  'exec 3<&0; (cat <&3 >/dev/null; kill -TERM $$ 2>/dev/null) & exec "$0" "$@" </dev/null 3<&-';

/** Command and arguments that run `program` tied to the pipe that they must be given as standard input. */
export function tiedCommand(program: string, args: readonly string[]): [string, string[]] {
  return ["/bin/sh", ["-c", script, program, ...args]];
}

/**
 * Starts a program that ends with us, without output. In a session of its own: a terminal's Ctrl-C does not reach it.
 * @param path search path for the program, instead of this process's PATH
 */
export function spawnTied(
  program: string,
  args: readonly string[],
  path: string | undefined,
): ChildProcess {
  const child = spawn(...tiedCommand(program, args), {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
    ...(path === undefined ? {} : { env: { PATH: path } }),
  });
  // The pipe is only ever closed: its end tells the subshell to go too.
  child.stdin?.on("error", () => undefined);
  child.once("exit", () => child.stdin?.destroy());
  return child;
}
