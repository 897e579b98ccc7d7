/** `paddock worker`: the worker's own program, with the thread counts that must stand before its engine loads. */
import { spawn } from "node:child_process";
import { threadEnvironment } from "@paddock/engine";
import { workerEntry } from "../fleet/worker-command.js";
import type { Io } from "../io.js";

/** Runs it with these flags; signals are passed on. Returns its exit code. */
export function workerCommand(flags: readonly string[], io: Io): Promise<number> {
  const threads = Number(flagValue(flags, "--threads") ?? 1);
  const child = spawn(process.execPath, [workerEntry(), ...flags], {
    // The channel carries nothing: when it closes, this process is gone, however it ended.
    stdio: ["inherit", "inherit", "inherit", "ipc"],
    env: { ...io.environment, ...(threads > 0 ? threadEnvironment(threads) : {}) },
  });
  const forward = (name: NodeJS.Signals): void => void child.kill(name);
  process.on("SIGINT", forward);
  process.on("SIGTERM", forward);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? 4));
  });
}

function flagValue(flags: readonly string[], name: string): string | undefined {
  const at = flags.indexOf(name);
  const inline = flags.find((flag) => flag.startsWith(`${name}=`));
  return inline?.slice(name.length + 1) ?? (at < 0 ? undefined : flags[at + 1]);
}
