/** A worker's life: open the engine, say hello, then serve one generation after another until told to shut down. */
import { once } from "node:events";
import { hostname } from "node:os";
import { PaddockError, parseRunSpec, type RunSpec } from "@paddock/contract";
import { type BatchPool, openDataset, type SharedDataset, startBatchPool } from "@paddock/data";
import {
  type Assignment,
  type CoordinatorMessage,
  DecisionKind,
  protocolVersion,
  type Welcome,
} from "@paddock/proto";
import { type createLogger, type EventLoopMonitor, monitorEventLoop } from "@paddock/service-kit";
import type { EngineFacts, HostCalls } from "../engine/calls.js";
import { type EngineHost, startEngineThread } from "../engine/engine-host.js";
import { createEvaluator } from "../evaluate/evaluator.js";
import { writeVisuals } from "../evaluate/visuals.js";
import type { Exchange } from "../exchange/exchange.js";
import { openExchange } from "../exchange/open-exchange.js";
import { startPeerService } from "../peer/peer-service.js";
import { poisonOf } from "../segment/offender-samples.js";
import { connectSession, type Session } from "./connection.js";
import { Generation } from "./generation.js";
import { consumeSegments, type SegmentConsumer } from "./segments.js";

export interface WorkerOptions {
  /** host:port of the coordinator. */
  readonly coordinator: string;
  /** Unique in the fleet. */
  readonly name: string;
  readonly engine: RunSpec["engine"]["name"];
  readonly threads: number;
  /** `cpu`, `cuda:<n>`; undefined: a GPU if the engine sees one. */
  readonly device: string | undefined;
  /** Which of this machine's workers this is, from 0: they take its GPUs in turn. */
  readonly localRank: number;
  /** `library`: flat vectors lie in the engine's library as on a GPU, also on a CPU. For tests. */
  readonly vectors?: "library";
  /** Comma-separated ids of samples to spoil. For tests. */
  readonly poison?: string | undefined;
  /** Address on which peers reach this worker. */
  readonly host: string;
  readonly logger: ReturnType<typeof createLogger>;
  /** Leaves the fleet when it fires: says goodbye and ends. */
  readonly signal: AbortSignal;
}

export interface WorkerEnd {
  /** true: the run reached its last step. */
  readonly finished: boolean;
  readonly reason: string;
}

/** Resolves when the coordinator shuts the worker down; rejects when the stream breaks or this worker cannot go on. */
export async function runWorker(options: WorkerOptions): Promise<WorkerEnd> {
  const life = new WorkerLife(options);
  try {
    return await life.live();
  } finally {
    await life.close();
  }
}

/** What a welcome brings: the run that this worker serves. */
interface Served {
  readonly spec: RunSpec;
  readonly message: Welcome;
  readonly train: SharedDataset;
  readonly pool: BatchPool;
}

/** What exists while one generation runs. */
interface Running {
  readonly generation: Generation;
  readonly exchange: Exchange;
  segments: SegmentConsumer | undefined;
  /** Set when this generation is over: errors after that are expected. */
  over: PaddockError | undefined;
}

class WorkerLife {
  readonly #o: WorkerOptions;
  readonly #eventLoop: EventLoopMonitor;
  #engine: EngineHost;
  /** false once a step was interrupted: the thread then holds tensors of nobody and is replaced. */
  #engineIsClean = true;
  #session: Session | undefined;
  #served: Served | undefined;
  #running: Running | undefined;
  #badImages = 0;
  #fail: (error: PaddockError) => void = () => undefined;

  constructor(options: WorkerOptions) {
    this.#o = options;
    this.#eventLoop = monitorEventLoop();
    this.#engine = startEngineThread(this.#hostCalls());
  }

  async live(): Promise<WorkerEnd> {
    const { coordinator, name, host, logger } = this.#o;
    const facts = await this.#openEngine();
    logger.info({ engine: facts.name, device: facts.device, why: facts.why }, "engine is open");
    const peers = await startPeerService(host, (request) => this.#readShard(request));
    try {
      const session = connectSession(coordinator);
      this.#session = session;
      session.send({
        kind: "hello",
        hello: {
          version: protocolVersion,
          workerName: name,
          host: hostname(),
          pid: process.pid,
          engine: facts.name,
          device: facts.device,
          threads: facts.threads,
          peerAddress: peers.address,
          holding: null,
        },
      });
      const failed = new Promise<never>((_, reject) => {
        this.#fail = reject;
      });
      return await Promise.race([this.#listen(session), failed, this.#leave(session)]);
    } finally {
      await peers.close();
    }
  }

  async close(): Promise<void> {
    await this.#endGeneration(new PaddockError("stale-generation", "the worker is closing"));
    this.#session?.close();
    await this.#served?.pool.close();
    await this.#engine.terminate(new PaddockError("stale-generation", "the worker is closing"));
    this.#eventLoop.close();
  }

  async #leave(session: Session): Promise<WorkerEnd> {
    const { signal } = this.#o;
    if (!signal.aborted) await once(signal, "abort");
    const reason = `received ${String(signal.reason)}`;
    session.send({ kind: "goodbye", goodbye: { reason } });
    return { finished: false, reason };
  }

  async #listen(session: Session): Promise<WorkerEnd> {
    for await (const message of session.messages) {
      const end = await this.#hear(message);
      if (end) return end;
    }
    throw new PaddockError(
      "worker-lost",
      "the coordinator closed the session without a shutdown message",
    );
  }

  async #hear(message: CoordinatorMessage): Promise<WorkerEnd | undefined> {
    switch (message.kind) {
      case "welcome":
        await this.#onWelcome(message.welcome);
        return undefined;
      case "assignment":
        await this.#onAssignment(message.assignment);
        return undefined;
      case "decision": {
        const { decision } = message;
        if (decision.generation !== this.#running?.generation.membership.generation)
          return undefined;
        if (decision.kind === DecisionKind.DECISION_KIND_ABORT) {
          await this.#endGeneration(
            new PaddockError(
              "stale-generation",
              `generation ${decision.generation} was ended by the coordinator`,
            ),
          );
        } else {
          this.#running.generation.decided(decision);
        }
        return undefined;
      }
      case "shutdown":
        return await this.#onShutdown(message.shutdown);
      default:
        // A drain shows in the decisions; kinds of a newer minor version are ignored.
        return undefined;
    }
  }

  async #onWelcome(message: Welcome): Promise<void> {
    const spec = parseRunSpec(JSON.parse(message.specJson));
    const train = await openDataset(spec.data, "train");
    const pool = await startBatchPool({
      spec,
      threads: spec.data.threads,
      dataset: train,
      onBadImage: ({ path, reason }) => {
        this.#badImages++;
        this.#o.logger.warn({ path, reason }, "image replaced: it cannot be decoded");
      },
    });
    this.#served = { spec, message, train, pool };
  }

  async #onAssignment(assignment: Assignment): Promise<void> {
    await this.#endGeneration(
      new PaddockError("stale-generation", `generation ${assignment.generation} has begun`),
    );
    if (!this.#engineIsClean) await this.#replaceEngine();
    const served = this.#served;
    if (!served) throw new PaddockError("internal", "an assignment came before the welcome");
    const { spec, message, train, pool } = served;
    pool.leaveOut(assignment.leftOut);
    const engine = this.#engine;
    const exchange = openExchange(spec.exchange, {
      redisUrl: message.redisUrl,
      runId: message.runId,
      workers: assignment.workers,
      host: this.#o.host,
      onMeeting: (why) => {
        if (why === undefined) this.#o.logger.info("collectives: tensors go worker to worker");
        else this.#o.logger.warn({ why }, "no collectives: tensors go through Redis instead");
      },
    });
    const generation = new Generation(assignment, {
      spec,
      runDir: message.runDir,
      engine,
      exchange,
      pool,
      evaluator: createEvaluator({ spec, engine, exchange, train }),
      send: (m) => this.#session?.send(m),
      eventLoopP99Ms: () => this.#eventLoop.p99Ms(),
      badImages: () => this.#badImages,
      poison: poisonOf(this.#o.poison),
    });
    const running: Running = { generation, exchange, segments: undefined, over: undefined };
    this.#running = running;
    this.#o.logger.info(
      {
        generation: assignment.generation,
        worker: assignment.worker,
        workers: assignment.workers,
        step: assignment.startStep,
      },
      "generation begins",
    );
    void this.#run(running, assignment, message.redisUrl);
  }

  /** Begins the generation and consumes its segments; a failure is reported to the coordinator, which decides. */
  async #run(running: Running, assignment: Assignment, redisUrl: string): Promise<void> {
    const { generation } = running;
    this.#engineIsClean = false;
    try {
      await generation.begin();
      if (running.over) return;
      running.segments = consumeSegments({
        redisUrl,
        queue: assignment.segmentQueue,
        run: (job, onStep) => generation.runSegment(job, onStep),
        onStop: () => {
          this.#engineIsClean = true;
        },
        onError: (error) => this.#report(running, error),
      });
    } catch (thrown) {
      this.#report(running, thrown);
    }
  }

  #report(running: Running, thrown: unknown): void {
    const error = PaddockError.from(thrown);
    if (running.over) return;
    const { generation } = running.generation.membership;
    this.#o.logger.error({ generation, code: error.code, err: error }, "generation failed here");
    this.#session?.send({
      kind: "failed",
      failed: { generation, step: 0, code: error.code, message: error.message },
    });
    // A failure that a new generation can mend is the coordinator's to mend; any other ends this worker.
    if (error.retry !== "replan") this.#fail(error);
  }

  async #onShutdown(shutdown: { finished: boolean; reason: string }): Promise<WorkerEnd> {
    const running = this.#running;
    const served = this.#served;
    if (shutdown.finished && running && served && running.generation.membership.worker === 0) {
      const { spec, message, train } = served;
      const { exchange } = running;
      const engine = this.#engine;
      const evaluator = createEvaluator({ spec, engine, exchange, train });
      await writeVisuals({ spec, runDir: message.runDir, engine, evaluator }).catch((error) =>
        this.#o.logger.warn({ err: error }, "no pictures for the report"),
      );
    }
    this.#session?.send({ kind: "goodbye", goodbye: { reason: "the coordinator said shutdown" } });
    return { finished: shutdown.finished, reason: shutdown.reason };
  }

  async #endGeneration(reason: PaddockError): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    if (!running) return;
    running.over = reason;
    running.generation.fail(reason);
    await running.segments?.close();
    await running.exchange.close();
  }

  #openEngine(): Promise<EngineFacts> {
    const { engine, threads, device, localRank, vectors } = this.#o;
    const options = { name: engine, threads, device, localRank };
    return this.#engine.call("open", vectors ? { ...options, vectors } : options);
  }

  async #replaceEngine(): Promise<void> {
    await this.#engine.terminate(new PaddockError("stale-generation", "the step was interrupted"));
    this.#engine = startEngineThread(this.#hostCalls());
    await this.#openEngine();
    this.#engineIsClean = true;
  }

  /** What the engine thread asks of the outside, always on behalf of the generation that runs now. */
  #hostCalls(): HostCalls {
    const current = (): Running => {
      if (!this.#running) throw new PaddockError("stale-generation", "no generation is running");
      return this.#running;
    };
    return {
      fetchUnit: async ({ step, part, expectedBytes, everyone }) => {
        const { exchange, generation } = current();
        const { generation: number, worker, workers } = generation.membership;
        const key = { generation: number, step, key: "weights" };
        if (everyone) return await exchange.gather(key, part, expectedBytes);
        return await Promise.all(
          Array.from({ length: workers }, (_, peer) =>
            peer === worker ? new Uint8Array(0) : exchange.fetch(key, peer, part),
          ),
        );
      },
      allToAll: ({ step, key, outgoing, expectedBytes }) => {
        const { exchange, generation } = current();
        const { generation: number } = generation.membership;
        return exchange.allToAll({ generation: number, step, key }, outgoing, expectedBytes);
      },
      phase: ({ step, phase }) => {
        const generation = this.#running?.generation.membership.generation;
        if (generation === undefined) return;
        this.#session?.send({ kind: "progress", progress: { generation, step, phase } });
      },
    };
  }

  async #readShard(request: {
    generation: number;
    kind: string;
    unit: string;
    start: number;
    end: number;
  }) {
    return this.#running?.generation.readShard(request);
  }
}
