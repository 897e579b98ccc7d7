/** The worker process: parses its flags, lives, and ends with an exit code that says why. */
import { parseArgs } from "node:util";
import { PaddockError, RunSpec } from "@paddock/contract";
import { createLogger, listenForShutdown } from "@paddock/service-kit";
import { runWorker } from "./session/run-worker.js";

const usage = `Usage: paddock worker --coordinator HOST:PORT [--name NAME] [--engine auto|torch|tensorflow|wasm] [--threads N] [--device DEVICE]
                      [--local-rank N] [--host ADDRESS]

One worker process: owns one device, executes some of the run's logical ranks, holds its shard of the state.
It takes its work from the coordinator and ends with it. SIGINT or SIGTERM: it leaves the fleet, the others go on from the
last checkpoint.

  --coordinator  address of the coordinator's gRPC server
  --name         unique name in the fleet           (default: worker-<pid>)
  --engine       how tensors are computed           (default: auto)
  --threads      intra-op threads, must equal the run's engine.threads (default: 1)
  --device       cpu or cuda:<n>                    (default: a GPU if the engine sees one, else cpu)
  --local-rank   which of this machine's workers this is: they take its GPUs in turn (default: 0)
  --host         address on which peers reach this worker (default: 127.0.0.1)

Example: paddock worker --coordinator 127.0.0.1:7070 --name gpu-1 --engine torch --device cuda:1`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      coordinator: { type: "string" },
      name: { type: "string", default: `worker-${process.pid}` },
      engine: { type: "string", default: "auto" },
      threads: { type: "string", default: "1" },
      device: { type: "string" },
      "local-rank": { type: "string", default: "0" },
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
  // `paddock train` keeps a terminal's Ctrl-C from its workers: a signal that comes here is meant for this worker alone.
  const shutdown = listenForShutdown();
  const end = await runWorker({
    coordinator: values.coordinator,
    name: values.name,
    engine,
    threads: Number(values.threads),
    device: values.device,
    localRank: Number(values["local-rank"]),
    // For tests: state in libtorch's memory on a CPU, the way it is on a GPU.
    ...(process.env["PADDOCK_VECTORS"] === "library" ? { vectors: "library" } : {}),
    // For tests of guards: these samples' pixels are no numbers.
    poison: process.env["PADDOCK_POISON"],
    host: values.host,
    logger,
    signal: shutdown.signal,
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
