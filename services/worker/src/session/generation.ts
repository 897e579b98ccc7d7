/**
 * One generation in a worker: load or initialise the shards, then step after step
 *   batch -> compute -> prepared -> decision -> update | skip -> publish -> (checkpoint) (evaluation)
 * until a decision says stop or the coordinator ends the generation.
 */
import { join } from "node:path";
import {
  isStateKind,
  type Layout,
  layoutOf,
  type RunSpec,
  ranksOf,
  type SegmentJob,
  shardOf,
} from "@paddock/contract";
import type { BatchPool, RankBatch } from "@paddock/data";
import {
  type Assignment,
  type Decision,
  DecisionKind,
  type Offender,
  type WorkerMessage,
} from "@paddock/proto";
import type { DeviceBytes, Membership, ShardState, StepReport } from "../engine/calls.js";
import type { EngineHost } from "../engine/engine-host.js";
import type { Evaluator } from "../evaluate/evaluator.js";
import type { Exchange, Readers } from "../exchange/exchange.js";
import { withSamples } from "../segment/offender-samples.js";
import { allocateState, stateBytes } from "../segment/state.js";
import { type Initial, loadInitial, loadState, saveState } from "../segment/state-io.js";
import { Decisions } from "./decisions.js";

/** What a generation needs of its surroundings. */
export interface GenerationDeps {
  readonly spec: RunSpec;
  readonly runDir: string;
  readonly engine: EngineHost;
  readonly exchange: Exchange;
  /** Batches of some logical ranks, made ahead and off the main thread. */
  readonly pool: Pick<BatchPool, "request" | "release">;
  readonly evaluator: Evaluator;
  readonly send: (message: WorkerMessage) => void;
  /** p99 of the main thread's event-loop delay in its current window, in milliseconds. */
  readonly eventLoopP99Ms: () => number;
  /** Images replaced so far. */
  readonly badImages: () => number;
  /** Spoils batches; for tests. */
  readonly poison?: ((batches: readonly RankBatch[]) => void) | undefined;
}

export class Generation {
  readonly membership: Membership;
  readonly layout: Layout;
  readonly state: ShardState;
  readonly #deps: GenerationDeps;
  readonly #assignment: Assignment;
  readonly #decisions = new Decisions();
  readonly #ranks: readonly number[];
  #scale: number;
  #nextStep: number;
  #sentBytes = 0;
  #updateSeconds = 0;
  #commitSeconds = 0;

  constructor(assignment: Assignment, deps: GenerationDeps) {
    const { generation, worker, workers } = assignment;
    this.membership = { generation, worker, workers };
    this.#assignment = assignment;
    this.#deps = deps;
    this.layout = layoutOf(deps.spec);
    this.state = allocateState(deps.spec, this.membership);
    this.#scale = assignment.scale;
    this.#nextStep = assignment.startStep;
    const { start, end } = ranksOf(deps.spec.logicalRanks, worker, workers);
    this.#ranks = Array.from({ length: end - start }, (_, i) => start + i);
  }

  /** Loads or initialises the shards, publishes them, and evaluates step 0 if asked to. */
  async begin(): Promise<void> {
    const { engine, spec, exchange, runDir } = this.#deps;
    const { startStep, loadCheckpoint, evaluateFirst } = this.#assignment;
    const { membership, state, layout } = this;
    this.#progress(startStep, "load");
    await exchange.enter(membership.generation, membership.worker, membership.workers);
    const target = { layout, membership, state, spec };
    const initial: Initial = loadCheckpoint
      ? {
          centers: await loadState({
            ...target,
            directory: checkpointDirectory(runDir, startStep),
          }),
          drawn: [],
        }
      : await loadInitial(target);
    const { centers, drawn: initialise } = initial;
    await engine.call("enter", { spec, membership, state, initialise, centers });
    await this.#publish(startStep, evaluateFirst ? "anyone" : "everyone");
    if (evaluateFirst) await this.#evaluate(startStep, true);
  }

  /** Runs the steps of one segment job. Returns true when a decision said stop. */
  async runSegment(job: SegmentJob, onStep: (done: number) => Promise<void>): Promise<boolean> {
    // A job that is delivered again (Redis lost its memory of it) begins where this worker stands.
    for (let step = Math.max(job.start, this.#nextStep); step < job.end; step++) {
      const stop = await this.#runStep(step);
      this.#nextStep = step + 1;
      await onStep(step + 1 - job.start);
      if (stop) return true;
    }
    return false;
  }

  decided(decision: Decision): void {
    this.#decisions.arrived(decision);
  }

  /** Live state for a peer: elements [start, end) of a unit, or undefined where another worker or generation owns them. */
  async readShard(request: {
    readonly generation: number;
    readonly kind: string;
    readonly unit: string;
    readonly start: number;
    readonly end: number;
  }): Promise<Float32Array | undefined> {
    if (request.generation !== this.membership.generation || !isStateKind(request.kind))
      return undefined;
    const shard = this.state[request.kind][request.unit];
    const unit = this.layout.units.find(({ name }) => name === request.unit);
    if (!shard || !unit) return undefined;
    const owned = shardOf(unit.elements, this.membership.worker, this.membership.workers);
    if (request.start < owned.start || request.end > owned.end) return undefined;
    await this.#deps.engine.call("syncState", {});
    return shard.subarray(request.start - owned.start, request.end - owned.start);
  }

  /** Ends every wait for a decision. The engine and the exchange end theirs by themselves. */
  fail(reason: Error): void {
    this.#decisions.fail(reason);
  }

  async #runStep(step: number): Promise<boolean> {
    const { engine, pool } = this.#deps;
    this.#progress(step, "data");
    const started = performance.now();
    const batches = await pool.request(step, this.#ranks);
    this.#deps.poison?.(batches);
    const dataSeconds = secondsSince(started);
    const report = await engine.call("compute", { step, scale: this.#scale, batches });
    const offenders = report.offenders.map((seen) => withSamples(seen, batches));
    pool.release(batches);
    this.#reportPrepared(step, { ...report, offenders }, dataSeconds);
    const prepared = performance.now();
    const decision = await this.#decisions.of(step);
    this.#commitSeconds = secondsSince(prepared);
    const updating = performance.now();
    if (decision.kind === DecisionKind.DECISION_KIND_COMMIT) {
      await engine.call("update", { step, gradNorm: decision.gradNorm });
    } else {
      await engine.call("skip", { step });
    }
    this.#scale = decision.scale;
    // Evaluation, and the pictures that worker 0 makes at the end, gather weights without the others.
    await this.#publish(step + 1, decision.evaluate || decision.stop ? "anyone" : "everyone");
    this.#updateSeconds = secondsSince(updating);
    if (decision.checkpoint) await this.#checkpoint(step + 1);
    if (decision.evaluate) await this.#evaluate(step + 1, step + 1 === this.#deps.spec.steps);
    return decision.stop;
  }

  #reportPrepared(
    step: number,
    report: StepReport & DeviceBytes & { readonly offenders: readonly Offender[] },
    dataSeconds: number,
  ): void {
    const { spec, exchange, send } = this.#deps;
    const sentBytes = exchange.stats.sentBytes;
    send({
      kind: "prepared",
      prepared: {
        generation: this.membership.generation,
        step,
        finite: report.finite,
        losses: report.losses,
        monitors: report.monitors,
        normRoots: report.normRoots,
        // Update and commit of this step are still to come: those of the step before stand in for them.
        seconds: {
          ...report.seconds,
          data: dataSeconds,
          update: this.#updateSeconds,
          commit: this.#commitSeconds,
        },
        exchangeBytes: sentBytes - this.#sentBytes,
        peakGatheredBytes: report.peakGatheredBytes,
        stateBytes: stateBytes(this.state),
        images: this.#ranks.length * spec.batchPerRank,
        offenders: report.offenders,
        eventLoopP99Ms: this.#deps.eventLoopP99Ms(),
        badImages: this.#deps.badImages(),
        deviceAllocatedBytes: report.deviceAllocatedBytes,
        devicePeakBytes: report.devicePeakBytes,
        deviceReservedBytes: report.deviceReservedBytes,
      },
    });
    this.#sentBytes = sentBytes;
  }

  /** Makes the shards readable by the peers as weights of `step`; older ones are no longer needed by anybody. */
  async #publish(step: number, readers: Readers): Promise<void> {
    const { engine, exchange } = this.#deps;
    const { generation, workers } = this.membership;
    if (workers === 1) return;
    const parts = await engine.call("encodeWeights", {});
    await exchange.publish({ generation, step, key: "weights" }, parts, readers);
    // A peer may still read the weights of the step that this one follows (its evaluation, a late gather).
    await exchange.retire(step - 1);
  }

  async #checkpoint(step: number): Promise<void> {
    const { engine, runDir, spec, send } = this.#deps;
    const { membership, layout, state } = this;
    this.#progress(step, "checkpoint");
    const centers = membership.worker === 0 ? await engine.call("centers", {}) : null;
    await engine.call("syncState", {});
    const directory = checkpointDirectory(runDir, step);
    const file = await saveState({ directory, step, membership, layout, state, centers, spec });
    send({
      kind: "checkpointWritten",
      checkpointWritten: {
        generation: membership.generation,
        step,
        file: file.name,
        bytes: file.bytes,
        sha256: file.sha256,
        worker: membership.worker,
      },
    });
  }

  async #evaluate(step: number, full: boolean): Promise<void> {
    const { evaluator, send } = this.#deps;
    const started = performance.now();
    const result = await evaluator.evaluate({
      membership: this.membership,
      step,
      full,
      onProgress: () => this.#progress(step, "evaluate"),
    });
    if (!result) return;
    send({
      kind: "evaluationDone",
      evaluationDone: {
        generation: this.membership.generation,
        step,
        knnAccuracy: result.accuracy,
        bank: result.bank,
        queries: result.queries,
        seconds: secondsSince(started),
      },
    });
  }

  #progress(step: number, phase: string): void {
    const { generation } = this.membership;
    this.#deps.send({ kind: "progress", progress: { generation, step, phase } });
  }
}

function checkpointDirectory(runDir: string, step: number): string {
  return join(runDir, "checkpoints", String(step));
}

function secondsSince(start: number): number {
  return (performance.now() - start) / 1000;
}
