/** The worker process: parses its flags, lives, and ends with an exit code that says why. */
import { parseArgs } from "node:util";
import { PaddockError, RunSpec } from "@paddock/contract";
import {
  checkJoinToken,
  createLogger,
  listenForShutdown,
  readJoinToken,
} from "@paddock/service-kit";
import { limitHeapGrowth } from "./heap-growth.js";
import { runWorker } from "./session/run-worker.js";
import type { WorkerSecurity } from "./session/security.js";

const usage = `Usage: paddock worker --coordinator HOST:PORT [--name NAME] [--engine auto|torch|tensorflow|wasm] [--threads N] [--device DEVICE]
                      [--local-rank N] [--host ADDRESS] [--reconnect-seconds S]
                      [--tls-dir DIR] [--join-token-file FILE] [--insecure-bind]

One worker process: owns one device, executes some of the run's logical ranks, holds its shard of the state.
It takes its work from the coordinator and ends with the run. If the coordinator is away, it keeps its state and looks for it.
SIGINT or SIGTERM: it hands its state over to the others after the step in progress, then ends. A second one: it ends at once.

  --coordinator  address of the coordinator's gRPC server
  --name         unique name in the fleet           (default: worker-<pid>)
  --engine       how tensors are computed           (default: auto)
  --threads      intra-op threads, must equal the run's engine.threads (default: 1)
  --device       cpu or cuda:<n>                    (default: a GPU if the engine sees one, else cpu)
  --local-rank   which of this machine's workers this is: they take its GPUs in turn (default: 0)
  --host         address on which peers reach this worker (default: 127.0.0.1). Others than loopback need --tls-dir
  --tls-dir      folder with ca.crt, worker.crt and worker.key (paddock certs init makes one; default: PADDOCK_TLS_DIR)
  --join-token-file  file with the token that lets it into the run (default: the variable PADDOCK_JOIN_TOKEN)
  --insecure-bind    listen on --host without TLS, in a network that you trust
  --reconnect-seconds  how long a coordinator that does not answer is looked for (default: 300; 0: not at all)

Examples:
  paddock worker --coordinator 127.0.0.1:7070 --name gpu-1 --engine torch --device cuda:1
  paddock worker --coordinator trainer:7070 --host 10.0.0.7 --tls-dir /etc/paddock/tls`;

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
      "reconnect-seconds": { type: "string", default: "300" },
      "tls-dir": { type: "string" },
      "join-token-file": { type: "string" },
      "insecure-bind": { type: "boolean", default: false },
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
  limitHeapGrowth();
  const engine = RunSpec.shape.engine.unwrap().shape.name.parse(values.engine);
  const logger = createLogger({ name: values.name, level: "info" });
  // `paddock train` keeps a terminal's Ctrl-C from its workers: a signal that comes here is meant for this worker alone.
  const shutdown = listenForShutdown();
  // `paddock worker` runs this program beside itself. If it was killed in a way that it cannot pass on, nobody else ends this one.
  const leave = (): boolean => process.kill(process.pid, "SIGTERM");
  process.once("disconnect", leave);
  if (process.connected === false) leave();
  // A file that would be larger than the shell's limit (ulimit -f) is an error of one write, and not the end of the process.
  process.on("SIGXFSZ", () => undefined);
  const end = await runWorker({
    coordinator: values.coordinator,
    name: values.name,
    engine,
    threads: Number(values.threads),
    device: values.device,
    localRank: Number(values["local-rank"]),
    // For tests: state in libtorch's memory on a CPU, the way it is on a GPU.
    ...(process.env["PADDOCK_VECTORS"] === "library" ? { vectors: "library" } : {}),
    // For tests of guards: the pixels of these samples are no numbers.
    poison: process.env["PADDOCK_POISON"],
    host: values.host,
    reconnectSeconds: secondsOf(values["reconnect-seconds"]),
    security: await securityOf(values),
    logger,
    signal: shutdown.signal,
  });
  logger.info(end, "shut down");
  return 0;
}

function secondsOf(text: string): number {
  const seconds = Number(text);
  if (text.trim() !== "" && seconds >= 0 && Number.isFinite(seconds)) return seconds;
  throw new PaddockError(
    "invalid-argument",
    `--reconnect-seconds: expected a number of seconds from 0 on, received "${text}"`,
  );
}

async function securityOf(values: {
  readonly "tls-dir"?: string | undefined;
  readonly "join-token-file"?: string | undefined;
  readonly "insecure-bind": boolean;
}): Promise<WorkerSecurity> {
  const { "tls-dir": dir, "join-token-file": file, "insecure-bind": insecureBind } = values;
  const variable = process.env["PADDOCK_JOIN_TOKEN"];
  const tlsDir = dir ?? process.env["PADDOCK_TLS_DIR"];
  const joinToken = file
    ? await readJoinToken(file)
    : variable && checkJoinToken(variable, "PADDOCK_JOIN_TOKEN");
  return {
    insecureBind,
    ...(tlsDir ? { tls: { dir: tlsDir, role: "worker" } as const } : {}),
    ...(joinToken ? { joinToken } : {}),
  };
}

main().then(
  (code) => process.exit(code),
  (thrown) => {
    const error = PaddockError.from(thrown);
    process.stderr.write(`paddock worker: ${error.message}\n`);
    process.exit(error.exitCode);
  },
);
