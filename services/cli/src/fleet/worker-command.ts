/** The command that starts one worker process of a run. */
import { fileURLToPath } from "node:url";
import type { RunSpec } from "@paddock/contract";
import { threadEnvironment } from "@paddock/engine";
import type { WorkerCommand } from "./local-workers.js";

/** Path of the worker's entry. */
export function workerEntry(): string {
  return fileURLToPath(new URL("main.js", import.meta.resolve("@paddock/worker")));
}

/** Meant for the process that starts workers; what they need of it they are told. */
const withoutSecrets = {
  PADDOCK_TLS_DIR: undefined,
  PADDOCK_JOIN_TOKEN: undefined,
  PADDOCK_REDIS_URL: undefined,
  REDIS_URL: undefined,
};

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
  tlsDir?: string | undefined;
  joinToken?: string | undefined;
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
      ...(o.tlsDir === undefined ? [] : ["--tls-dir", o.tlsDir]),
    ],
    env: {
      ...o.environment,
      ...withoutSecrets,
      // Not in the arguments, which every user of the machine can see.
      ...(o.joinToken === undefined ? {} : { PADDOCK_JOIN_TOKEN: o.joinToken }),
      ...threadEnvironment(o.engine.threads),
    },
  };
}
