/**
 * k-NN of a checkpoint's teacher: we play coordinator for one worker, assign it the checkpoint's step with the wish to evaluate
 * first, and send it home with the answer. The same code measures as in the run.
 */
import { isErrorCode, PaddockError, type RunSpec } from "@paddock/contract";
import {
  type CoordinatorMessage,
  type EvaluationDone,
  protocolVersion,
  type WorkerMessage,
  WorkerService,
} from "@paddock/proto";
import { openRedis, serve, startGrpcServer } from "@paddock/service-kit";
import { startLocalWorkers, type WorkerExit } from "../fleet/local-workers.js";
import { workerCommand } from "../fleet/worker-command.js";

export interface EvaluateOptions {
  readonly runDir: string;
  /** Where its checkpoints lie. */
  readonly checkpointRoot: string;
  /** Committed steps of the checkpoint: `<checkpointRoot>/<step>`. */
  readonly step: number;
  /** The run's spec; its dataset may have moved. */
  readonly spec: RunSpec;
  /** Folder for logs and Redis. */
  readonly dir: string;
  readonly redisUrl: string | undefined;
  readonly environment: NodeJS.ProcessEnv;
}

const generation = 1;
const goodbyeMs = 10_000;

/** Errors: those of the checkpoint, the dataset and the engine, as the worker met them. */
export async function evaluateCheckpoint(options: EvaluateOptions): Promise<EvaluationDone> {
  const redis = await openRedis({ url: options.redisUrl, dir: options.dir });
  try {
    return await withServer(options, redis.url);
  } finally {
    await redis.close();
  }
}

async function withServer(options: EvaluateOptions, redisUrl: string): Promise<EvaluationDone> {
  let settle: (result: EvaluationDone | PaddockError) => void = () => undefined;
  const result = new Promise<EvaluationDone | PaddockError>((resolve) => {
    settle = resolve;
  });
  const session = serve(WorkerService, {
    session: (messages) => conversation(messages, { ...options, redisUrl }, settle),
  });
  const server = await startGrpcServer({ host: "127.0.0.1", port: 0, services: [session] });
  const workers = await startLocalWorkers({
    slots: 1,
    dir: options.dir,
    command: (slot, start) =>
      workerCommand({
        coordinator: server.address,
        slot,
        start,
        engine: options.spec.engine,
        environment: options.environment,
      }),
    onExit: (exit) => settle(lost(exit)),
    onExtinct: (exit) => settle(lost(exit)),
  });
  try {
    const settled = await result;
    if (settled instanceof PaddockError) throw settled;
    return settled;
  } finally {
    await workers.end(goodbyeMs);
    await server.close();
  }
}

/** The coordinator's side of the session. */
async function* conversation(
  messages: AsyncIterable<WorkerMessage>,
  options: EvaluateOptions & { readonly redisUrl: string },
  settle: (result: EvaluationDone | PaddockError) => void,
): AsyncGenerator<CoordinatorMessage> {
  for await (const message of messages) {
    if (message.kind === "hello") yield* opening(options);
    if (message.kind === "evaluationDone") {
      settle(message.evaluationDone);
      yield { kind: "shutdown", shutdown: { finished: false, reason: "evaluated" } };
      return;
    }
    if (message.kind === "failed") {
      const { code, message: reason } = message.failed;
      settle(new PaddockError(isErrorCode(code) ? code : "run-failed", reason));
      yield { kind: "shutdown", shutdown: { finished: false, reason: "failed" } };
      return;
    }
  }
}

function* opening({
  spec,
  runDir,
  checkpointRoot,
  step,
  redisUrl,
}: EvaluateOptions & { redisUrl: string }) {
  yield {
    kind: "welcome",
    welcome: {
      version: protocolVersion,
      runId: "evaluation",
      specJson: JSON.stringify(spec),
      leaseSeconds: spec.fleet.leaseSeconds,
      runDir,
      redisUrl,
      checkpointRoot,
    },
  } as const;
  yield {
    kind: "assignment",
    assignment: {
      generation,
      worker: 0,
      workers: 1,
      startStep: step,
      loadCheckpoint: true,
      peers: [],
      scale: 1,
      goodSteps: 0,
      segmentQueue: "evaluation",
      evaluateFirst: true,
      manifestSha256: "",
      live: null,
      shadow: -1,
      rankCuts: [],
      checkpointFirst: false,
      leftOut: [],
    },
  } as const;
}

function lost({ end, tail }: WorkerExit): PaddockError {
  return new PaddockError(
    end === 3 ? "engine-unavailable" : "run-failed",
    `expected an evaluation, but its worker ended with ${end}:\n${tail}`,
  );
}
