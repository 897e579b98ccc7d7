/** The worker process: parses its flags, lives, and ends with an exit code that says why. */
import { parseArgs } from "node:util";
import { PaddockError, RunSpec } from "@paddock/contract";
import { createLogger } from "@paddock/service-kit";
import { runWorker } from "./session/run-worker.js";

const usage = `Usage: paddock worker --coordinator HOST:PORT [--name NAME] [--engine auto|torch|tensorflow|wasm] [--threads N] [--host ADDRESS]

One worker process: owns one device, executes some of the run's logical ranks, holds its shard of the state.
It takes its work from the coordinator and ends with it.

  --coordinator  address of the coordinator's gRPC server
  --name         unique name in the fleet           (default: worker-<pid>)
  --engine       how tensors are computed           (default: auto)
  --threads      intra-op threads, must equal the run's engine.threads (default: 1)
  --host         address on which peers reach this worker (default: 127.0.0.1)

Example: paddock worker --coordinator 127.0.0.1:7070 --name gpu-0 --engine torch`;

/** SIGINT and SIGTERM are the coordinator's to turn into a drain; a worker alone would only tear the step apart. */
for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => undefined);

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      coordinator: { type: "string" },
      name: { type: "string", default: `worker-${process.pid}` },
      engine: { type: "string", default: "auto" },
      threads: { type: "string", default: "1" },
      host: { type: "string", default: "127.0.0.1" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  if (!values.coordinator) {
    throw new PaddockError("invalid-argument", `--coordinator HOST:PORT is missing\n\n${usage}`);
  }
  const engine = RunSpec.shape.engine.unwrap().shape.name.parse(values.engine);
  const logger = createLogger({ name: values.name, level: "info" });
  const end = await runWorker({
    coordinator: values.coordinator,
    name: values.name,
    engine,
    threads: Number(values.threads),
    host: values.host,
    logger,
  });
  logger.info(end, "shut down");
  return 0;
}

main().then(
  (code) => process.exit(code),
  (thrown) => {
    const error = PaddockError.from(thrown);
    process.stderr.write(`paddock worker: ${error.message}\n`);
    process.exit(error.exitCode);
  },
);
