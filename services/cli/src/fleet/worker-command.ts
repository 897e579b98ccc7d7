/** The command that starts one worker process of a run. */
import { fileURLToPath } from "node:url";
import type { RunSpec } from "@paddock/contract";
import { threadEnvironment } from "@paddock/engine";
import type { WorkerCommand } from "./local-workers.js";

/** Path of the worker's entry. */
export function workerEntry(): string {
  return fileURLToPath(new URL("main.js", import.meta.resolve("@paddock/worker")));
}

/**
 * Names are unique in the fleet, also among the processes that follow each other in one slot. Thread counts must be in the
 * environment before the engine loads: hence a process, and this environment.
 */
export function workerCommand(o: {
  coordinator: string;
  slot: number;
  start: number;
  engine: RunSpec["engine"];
  environment: NodeJS.ProcessEnv;
}): WorkerCommand {
  const name = o.start === 0 ? `worker-${o.slot}` : `worker-${o.slot}.${o.start}`;
  return {
    program: process.execPath,
    args: [
      workerEntry(),
      ...["--coordinator", o.coordinator, "--name", name],
      ...["--local-rank", String(o.slot)],
      // They end with the process that started them: it is the coordinator, and never comes back as such.
      ...["--reconnect-seconds", "0"],
      ...["--engine", o.engine.name, "--threads", String(o.engine.threads)],
    ],
    env: { ...o.environment, ...threadEnvironment(o.engine.threads) },
  };
}
