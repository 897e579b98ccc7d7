/**
 * A worker's life: opens the engine, then does what `decideWorker` says, and tells it what came of it. The only place where the
 * session's state changes.
 */
import { once } from "node:events";
import { hostname } from "node:os";
import { join } from "node:path";
import { PaddockError } from "@paddock/contract";
import {
  type Assignment,
  type Decision,
  protocolVersion,
  type ShardRequest,
  type Welcome,
} from "@paddock/proto";
import { type EventLoopMonitor, monitorEventLoop } from "@paddock/service-kit";
import { failpoint } from "@paddock/service-kit/failpoints";
import { startCheckpointThread } from "../checkpoint/checkpoint-host.js";
import type { EngineFacts } from "../engine/calls.js";
import { type EngineHost, startEngineThread } from "../engine/engine-host.js";
import { createEvaluator } from "../evaluate/evaluator.js";
import { writeVisuals } from "../evaluate/visuals.js";
import { openExchange } from "../exchange/open-exchange.js";
import { type ReadShard, startPeerService } from "../peer/peer-service.js";
import { readHolding } from "../segment/live-state.js";
import { poisonOf } from "../segment/offender-samples.js";
import { createLink, type Link } from "./connection.js";
import { Generation } from "./generation.js";
import { hostCallsOf } from "./host-calls.js";
import { collectivesRefusal } from "./security.js";
import { consumeSegments, type SegmentConsumer } from "./segments.js";
import { type ServedRun, serveRun } from "./served-run.js";
import { tracedSession } from "./traced-session.js";
import type { WorkerEffect, WorkerEvent } from "./worker-event.js";
import type { WorkerEnd, WorkerOptions } from "./worker-options.js";
import type { WorkerState } from "./worker-state.js";

/** Resolves when the coordinator shuts the worker down; rejects when it stays away or this worker cannot go on. */
export async function runWorker(options: WorkerOptions): Promise<WorkerEnd> {
  const life = new WorkerLife(options);
  try {
    return await life.live();
  } finally {
    await life.close();
  }
}

class WorkerLife {
  readonly #o: WorkerOptions;
  readonly #eventLoop: EventLoopMonitor = monitorEventLoop();
  readonly #engine: EngineHost;
  readonly #checkpoints = startCheckpointThread();
  readonly #link: Link;
  readonly #session = tracedSession();
  #state: WorkerState | undefined;
  readonly #events: WorkerEvent[] = [];
  #isDeciding = false;
  #served: Promise<ServedRun> | undefined;
  /** The generation that runs or ran last, and one that is still held. */
  readonly #generations = new Map<number, Generation>();
  #current: Generation | undefined;
  #segments: SegmentConsumer | undefined;
  #pictures: Promise<void> | undefined;
  #badImages = 0;
  #settle: { resolve: (end: WorkerEnd) => void; reject: (error: PaddockError) => void } | undefined;

  constructor(options: WorkerOptions) {
    this.#o = options;
    this.#engine = startEngineThread(hostCallsOf(() => this.#current));
    this.#link = createLink({
      address: options.coordinator,
      security: options.security,
      reconnectSeconds: options.reconnectSeconds,
      onOpen: () => this.#post({ kind: "connected" }),
      onMessage: (message) => this.#post({ kind: "message", message }),
      onLost: (reason) => {
        options.logger.warn({ reason }, "the coordinator does not answer; looking for it");
        this.#post({ kind: "disconnected", reason });
      },
      onGivenUp: (error) => {
        // Told to end, it may still be drawing pictures when the coordinator has gone.
        if (this.#state?.ended) return;
        options.logger.error({ err: error }, "the session cannot go on");
        this.#settle?.reject(error);
      },
    });
  }

  async live(): Promise<WorkerEnd> {
    const { name, host, logger, signal, security } = this.#o;
    const facts = await this.#openEngine();
    logger.info({ engine: facts.name, device: facts.device, why: facts.why }, "engine is open");
    const readShard: ReadShard = (request) => this.#readShard(request);
    const peers = await startPeerService(host, readShard, { ...security, logger });
    const ended = new Promise<WorkerEnd>((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    const { state, effects } = this.#session.begin({
      version: protocolVersion,
      workerName: name,
      host: hostname(),
      pid: process.pid,
      engine: facts.name,
      device: facts.device,
      threads: facts.threads,
      peerAddress: peers.address,
    });
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    const leave = (): void => this.#post({ kind: "leave", reason: `received ${signal.reason}` });
    if (signal.aborted) leave();
    else void once(signal, "abort").then(leave);
    try {
      return await ended;
    } finally {
      await peers.close();
    }
  }

  async close(): Promise<void> {
    const reason = new PaddockError("stale-generation", "the worker is closing");
    await this.#segments?.close();
    for (const generation of this.#generations.values()) await generation.exchange.close();
    this.#link.close();
    await this.#checkpoints.terminate(reason);
    await (await this.#served?.catch(() => undefined))?.pool.close();
    await this.#engine.terminate(reason);
    this.#eventLoop.close();
  }

  /** Events one after the other, also those that come while one is dealt with. */
  #post(event: WorkerEvent): void {
    this.#events.push(event);
    if (this.#isDeciding) return;
    this.#isDeciding = true;
    try {
      for (let next = this.#events.shift(); next; next = this.#events.shift()) {
        if (!this.#state) return;
        const { state, effects } = this.#session.decide(this.#state, next);
        this.#state = state;
        for (const effect of effects) this.#carryOut(effect);
      }
    } finally {
      this.#isDeciding = false;
    }
  }

  #carryOut(effect: WorkerEffect): void {
    switch (effect.kind) {
      case "connect":
        this.#link.open(effect.afterMs);
        break;
      case "send":
        this.#link.send(effect.message);
        break;
      case "serve":
        this.#serve(effect.welcome);
        break;
      case "load":
        void this.#load(effect.assignment);
        break;
      case "compute":
        this.#compute(effect.generation, effect.step, effect.scale);
        break;
      case "apply":
        this.#apply(effect.decision);
        break;
      case "checkpoint":
        this.#checkpoint(effect.generation, effect.step);
        break;
      case "evaluate":
        this.#evaluate(effect.generation, effect.step, effect.full);
        break;
      case "interrupt":
        void this.#interrupt(effect.generation);
        break;
      case "forget":
        this.#generations.delete(effect.generation);
        break;
      case "segment-done":
        this.#segments?.done(effect.start, effect.end);
        break;
      case "pictures":
        this.#pictures = this.#writePictures();
        break;
      case "end":
        void this.#end({ finished: effect.finished, reason: effect.reason });
        break;
      case "die":
        this.#settle?.reject(new PaddockError(effect.code, effect.message));
        break;
    }
  }

  #serve(welcome: Welcome): void {
    const before = this.#served;
    const served = serveRun(welcome, ({ path, reason }) => {
      this.#badImages++;
      this.#o.logger.warn({ path, reason }, "image replaced: it cannot be decoded");
    });
    this.#served = served;
    void before?.then(({ pool }) => pool.close()).catch(() => undefined);
    // Also when no assignment comes that would await it.
    served.catch((thrown) => this.#failed(0, 0, thrown));
  }

  async #load(assignment: Assignment): Promise<void> {
    const { generation: number, live } = assignment;
    await failpoint("worker.assignment.received");
    const served = await this.#served?.catch(() => undefined);
    // A run that cannot be served has been reported.
    const running = this.#state?.running;
    // Nor one whose generation was ended while its images were opened.
    const isDue = running?.assignment.generation === number && running.ending === "no";
    if (!served || !isDue) return;
    const generation = this.#generationOf(assignment, served);
    this.#generations.set(number, generation);
    this.#current = generation;
    const { worker, workers, startStep: step } = assignment;
    this.#o.logger.info({ generation: number, worker, workers, step }, "generation begins");
    const held = live ? this.#generations.get(live.generation)?.atRest : undefined;
    const work = generation.run(async () => {
      await generation.load(held);
      this.#segments = consumeSegments({
        redisUrl: served.welcome.redisUrl,
        queue: assignment.segmentQueue,
        onSegment: ({ start, end }) =>
          this.#post({ kind: "segment", generation: number, start, end }),
      });
    });
    this.#report(generation, step, work, () => this.#post({ kind: "loaded", generation: number }));
  }

  #generationOf(assignment: Assignment, { spec, welcome, train, pool }: ServedRun): Generation {
    const { logger, host, security } = this.#o;
    const { redisUrl, runId, runDir } = welcome;
    // A coordinator of an older minor version names none.
    const checkpointRoot = welcome.checkpointRoot || join(runDir, "checkpoints");
    const exchange = openExchange(spec.exchange, {
      redisUrl,
      runId,
      workers: assignment.workers,
      host,
      collectivesRefused: collectivesRefusal(host, security),
      onMeeting: (why) => {
        if (why === undefined) logger.info("collectives: tensors go worker to worker");
        else logger.warn({ why }, "no collectives: tensors go through Redis instead");
      },
    });
    const engine = this.#engine;
    return new Generation(assignment, {
      spec,
      checkpointRoot,
      engine,
      exchange,
      pool,
      tls: security?.tls,
      checkpoints: this.#checkpoints,
      logger: this.#o.logger,
      evaluator: createEvaluator({ spec, engine, exchange, train }),
      send: (message) => this.#link.send(message),
      eventLoopP99Ms: () => this.#eventLoop.p99Ms(),
      badImages: () => this.#badImages,
      poison: poisonOf(this.#o.poison),
    });
  }

  #compute(number: number, step: number, scale: number): void {
    const generation = this.#generations.get(number);
    if (!generation) return;
    const work = generation.run(() => generation.compute(step, scale));
    this.#report(generation, step, work, (report) =>
      this.#post({ kind: "prepared", generation: number, step, report }),
    );
  }

  /** The update counts as soon as it is done: if the peers cannot be told, that is another matter. */
  #apply(decision: Decision): void {
    const { generation: number, step } = decision;
    const generation = this.#generations.get(number);
    if (!generation) return;
    const work = generation.run(async () => {
      await generation.update(decision);
      if (!generation.isInterrupted) {
        return await generation.publishAfter(decision).catch((thrown) => PaddockError.from(thrown));
      }
      await generation.settle();
      return undefined;
    });
    this.#report(generation, step, work, (failure) => {
      this.#post({ kind: "applied", generation: number, step });
      if (failure) this.#failed(number, step, failure);
    });
  }

  #checkpoint(number: number, step: number): void {
    const generation = this.#generations.get(number);
    if (!generation) return;
    const work = generation.run(() => generation.checkpoint(step));
    this.#report(generation, step, work, () => undefined);
  }

  #evaluate(number: number, step: number, full: boolean): void {
    const generation = this.#generations.get(number);
    if (!generation) return;
    const work = generation.run(() => generation.evaluate(step, full));
    this.#report(generation, step, work, (evaluationDone) => {
      if (evaluationDone) this.#link.send({ kind: "evaluationDone", evaluationDone });
      this.#post({ kind: "evaluated", generation: number, step });
    });
  }

  async #interrupt(number: number): Promise<void> {
    const reason = new PaddockError("stale-generation", `generation ${number} is over`);
    const segments = this.#segments;
    this.#segments = undefined;
    await segments?.close();
    await this.#generations.get(number)?.interrupt(reason);
    this.#post({ kind: "rested", generation: number });
  }

  /** Tells the session what came of an activity; failures of one that was interrupted are expected. */
  #report<T>(
    generation: Generation,
    step: number,
    work: Promise<T>,
    onDone: (value: T) => void,
  ): void {
    work.then(onDone).catch((thrown) => {
      if (!generation.isInterrupted) this.#failed(generation.membership.generation, step, thrown);
    });
  }

  #failed(generation: number, step: number, thrown: unknown): void {
    const { code, message } = PaddockError.from(thrown);
    if (this.#generations.get(generation)?.isInterrupted) return;
    this.#o.logger.error({ generation, step, code, err: thrown }, "generation failed here");
    this.#post({ kind: "failed", generation, step, code, message });
  }

  async #writePictures(): Promise<void> {
    const { spec, welcome, train } = (await this.#served) as ServedRun;
    const exchange = this.#current?.exchange;
    if (!exchange) return;
    const engine = this.#engine;
    const evaluator = createEvaluator({ spec, engine, exchange, train });
    await writeVisuals({ spec, runDir: welcome.runDir, engine, evaluator }).catch((error) =>
      this.#o.logger.warn({ err: error }, "no pictures for the report"),
    );
  }

  async #end(end: WorkerEnd): Promise<void> {
    await this.#pictures;
    this.#link.send({ kind: "goodbye", goodbye: { reason: end.reason } });
    this.#settle?.resolve(end);
  }

  #openEngine(): Promise<EngineFacts> {
    const { engine, threads, device, localRank, vectors } = this.#o;
    const options = { name: engine, threads, device, localRank };
    return this.#engine.call("open", vectors ? { ...options, vectors } : options);
  }

  /** Only what is held at rest can be read, by its generation and step. */
  #readShard(request: ShardRequest): Float32Array | undefined {
    const isHeld = this.#state?.holdings.some(
      ({ generation, step }) => generation === request.generation && step === request.step,
    );
    if (!isHeld) return;
    const held = this.#generations.get(request.generation)?.atRest;
    return held && readHolding(held, request);
  }
}
