/**
 * What one generation does in a worker, activity by activity: load, compute, apply, checkpoint, evaluate. In which order and whether at
 * all is not decided here but in `worker-state.ts`.
 */

import { evenCuts, type RunSpec, ranksOfCut } from "@paddock/contract";
import type { BatchPool, RankBatch } from "@paddock/data";
import type { Centers } from "@paddock/model";
import {
  type Assignment,
  type Decision,
  DecisionKind,
  type EvaluationDone,
  type Prepared,
  type Progress,
  type WorkerMessage,
} from "@paddock/proto";
import type { createLogger, TlsOptions } from "@paddock/service-kit";
import { childOf } from "@paddock/service-kit/checkpoint-store";
import { failpoint } from "@paddock/service-kit/failpoints";
import type { CheckpointHost } from "../checkpoint/checkpoint-host.js";
import type { DeviceBytes, Membership, StepReport } from "../engine/calls.js";
import type { EngineHost } from "../engine/engine-host.js";
import type { Evaluator } from "../evaluate/evaluator.js";
import type { Exchange, Readers } from "../exchange/exchange.js";
import { loadLive } from "../segment/live-state.js";
import { withSamples } from "../segment/offender-samples.js";
import { allocateShards, keptShards, type Shards } from "../segment/shards.js";
import { stateBytes } from "../segment/state.js";
import { type Initial, type Load, loadInitial, loadState } from "../segment/state-io.js";
import { audit } from "./audit.js";
import { Saves } from "./saves.js";

/** What a generation needs of its surroundings. */
export interface GenerationDeps {
  readonly spec: RunSpec;
  /** Where the run's checkpoints lie. */
  readonly checkpointRoot: string;
  readonly engine: EngineHost;
  readonly exchange: Exchange;
  /** Batches of some logical ranks, made ahead and off the main thread. */
  readonly pool: Pick<BatchPool, "request" | "release" | "leaveOut">;
  readonly evaluator: Evaluator;
  readonly checkpoints: Pick<CheckpointHost, "save" | "load">;
  readonly logger: Pick<ReturnType<typeof createLogger>, "error">;
  /** Our certificate, where peers have one too. */
  readonly tls: TlsOptions | undefined;
  readonly send: (message: WorkerMessage) => void;
  /** p99 of the main thread's event-loop delay in its current window, in milliseconds. */
  readonly eventLoopP99Ms: () => number;
  /** Images replaced so far. */
  readonly badImages: () => number;
  /** Spoils batches; for tests. */
  readonly poison: ((batches: readonly RankBatch[]) => void) | undefined;
}

/** Between two looks at the waits for peers. */
const waitLookMs = 100;

/** Shards at rest, and the centres that belong to them. */
export interface AtRest {
  readonly shards: Shards;
  readonly centers: Centers;
}

export type StepOutcome = Omit<Prepared, "generation" | "step">;

export class Generation {
  readonly membership: Membership;
  readonly shards: Shards;
  /** Set while nothing runs here and the state may be read. */
  atRest: AtRest | undefined;
  readonly #deps: GenerationDeps;
  readonly #assignment: Assignment;
  readonly #ranks: readonly number[];
  readonly #abort = new AbortController();
  /** Whatever still runs here. */
  readonly #running = new Set<Promise<unknown>>();
  #sentBytes = 0;
  #updateSeconds = 0;
  #commitSeconds = 0;
  #preparedAt = 0;
  #progress: Omit<Progress, "generation"> = { step: 0, phase: "load", waitingOn: [] };
  #isEntered = false;
  readonly #saves: Saves;

  constructor(assignment: Assignment, deps: GenerationDeps) {
    const { generation, worker, workers, shadow, rankCuts } = assignment;
    const cuts = rankCuts.length > 0 ? rankCuts : evenCuts(deps.spec.logicalRanks, workers);
    this.membership = { generation, worker, workers, cuts };
    this.#assignment = assignment;
    this.#deps = deps;
    this.shards = allocateShards(deps.spec, this.membership, shadow);
    this.#saves = new Saves(deps, this.shards);
    const { start, end } = ranksOfCut(cuts, worker);
    this.#ranks = Array.from({ length: end - start }, (_, i) => start + i);
  }

  get exchange(): Exchange {
    return this.#deps.exchange;
  }

  get isInterrupted(): boolean {
    return this.#abort.signal.aborted;
  }

  /** Runs an activity; `rest` waits for it. */
  run<T>(activity: () => Promise<T>): Promise<T> {
    const running = activity();
    const settled = running.then(
      () => undefined,
      () => undefined,
    );
    this.#running.add(settled);
    void settled.then(() => this.#running.delete(settled));
    return running;
  }

  /**
   * Fills the shards and publishes them.
   * @param own what this worker holds of the generation from which the state comes
   */
  async load(own: AtRest | undefined): Promise<void> {
    const { engine, spec, exchange } = this.#deps;
    const { startStep, evaluateFirst, checkpointFirst } = this.#assignment;
    const { membership, shards } = this;
    this.#deps.pool.leaveOut(this.#assignment.leftOut);
    this.progress(startStep, "load");
    this.#watchWaits();
    await exchange.enter(membership.generation, membership.worker, membership.workers);
    await failpoint("worker.load.begun");
    const { centers, drawn: initialise } = await this.#fill(own);
    await failpoint("worker.load.read");
    const { state, shadow } = shards;
    await engine.call("enter", { spec, membership, state, shadow, initialise, centers });
    await failpoint("worker.load.done");
    this.#isEntered = true;
    // Worker 0 may also make pictures of a run that is to be saved and nothing else.
    await this.#publish(startStep, evaluateFirst || checkpointFirst ? "anyone" : "everyone");
  }

  /** One step up to its reduced gradient. */
  async compute(step: number, scale: number): Promise<StepOutcome> {
    const { engine, pool } = this.#deps;
    this.progress(step, "data");
    const started = performance.now();
    const batches = await pool.request(step, this.#ranks);
    const dataSeconds = secondsSince(started);
    this.#deps.poison?.(batches);
    await failpoint("worker.batch.ready");
    const report = await engine.call("compute", { step, scale, batches });
    audit(this.membership.generation, step, batches);
    const offenders = report.offenders.map((seen) => withSamples(seen, batches));
    pool.release(batches);
    this.#preparedAt = performance.now();
    return { ...this.#outcomeOf(report, dataSeconds), offenders };
  }

  /** Applies a decision about the prepared step. Needs no peer and is never interrupted. */
  async update({ step, kind, gradNorm }: Decision): Promise<void> {
    const { engine } = this.#deps;
    await failpoint("worker.decision.received");
    await this.#saves.copied;
    const updating = performance.now();
    this.#commitSeconds = (updating - this.#preparedAt) / 1000;
    if (kind === DecisionKind.DECISION_KIND_COMMIT) await engine.call("update", { step, gradNorm });
    else await engine.call("skip", { step });
    await failpoint("worker.update.done");
    this.#updateSeconds = secondsSince(updating);
  }

  /** After `update`: the fresh weights for the peers. */
  async publishAfter({ step, evaluate, stop }: Decision): Promise<void> {
    const publishing = performance.now();
    // Evaluation, and the pictures that worker 0 makes at the end, gather weights without the others.
    await this.#publish(step + 1, evaluate || stop ? "anyone" : "everyone");
    this.#updateSeconds += secondsSince(publishing);
    await failpoint("worker.step.done");
  }

  /** As `Saves.save`. */
  checkpoint(step: number): Promise<void> {
    this.progress(step, "checkpoint");
    return this.#saves.save(step, this.#checkpointDirectory(step), () => {
      // Where something else runs, that shows that this worker is alive.
      if (this.#running.size === 0) this.progress(step, "checkpoint");
    });
  }

  /** The teacher's accuracy on worker 0; undefined on the others. */
  async evaluate(step: number, full: boolean): Promise<EvaluationDone | undefined> {
    const started = performance.now();
    await failpoint("worker.evaluation.begun");
    const result = await this.#deps.evaluator.evaluate({
      membership: this.membership,
      step,
      full,
      onProgress: () => this.progress(step, "evaluate"),
    });
    if (!result) return undefined;
    return {
      generation: this.membership.generation,
      step,
      knnAccuracy: result.accuracy,
      bank: result.bank,
      queries: result.queries,
      seconds: secondsSince(started),
    };
  }

  /** Ends all waits for peers; resolves when nothing runs here any more. The shards stay, and may be read by peers. */
  async interrupt(reason: Error): Promise<void> {
    await failpoint("worker.abort.received");
    this.#abort.abort(reason);
    await this.exchange.close();
    await Promise.all(this.#running);
    await this.settle();
    await failpoint("worker.rested");
  }

  /** Makes the shards readable as they are now, if they have been loaded. */
  async settle(): Promise<void> {
    const { engine } = this.#deps;
    if (!this.#isEntered) return;
    await engine.call("rest", {});
    const centers = await engine.call("centers", {});
    this.atRest = { shards: this.shards, centers };
  }

  progress(step: number, phase: string): void {
    this.#progress = { step, phase, waitingOn: [] };
    this.#sendProgress();
  }

  /** Looks every now and then whether peers keep this worker from going on, and says so, once. */
  #watchWaits(): void {
    let before = "";
    const timer = setInterval(() => {
      if (this.isInterrupted) clearInterval(timer);
      const waitingOn = [...this.exchange.waitingOn()];
      const { step, phase } = this.#progress;
      const now = `${step} ${phase} ${waitingOn}`;
      // The same as at the look before: it does not pass by itself.
      const isNews = `${waitingOn}` !== `${this.#progress.waitingOn}`;
      if (waitingOn.length > 0 && now === before && isNews) {
        this.#progress = { step, phase, waitingOn };
        this.#sendProgress();
      }
      before = now;
    }, waitLookMs);
    timer.unref();
  }

  #sendProgress(): void {
    const { generation } = this.membership;
    this.#deps.send({ kind: "progress", progress: { generation, ...this.#progress } });
  }

  async #fill(own: AtRest | undefined): Promise<Initial> {
    const { shards } = this;
    const { startStep, loadCheckpoint, live, manifestSha256 } = this.#assignment;
    if (live) {
      const centers = await loadLive({
        shards,
        source: live,
        step: startStep,
        own,
        timeoutMs: this.#deps.spec.exchange.timeoutSeconds * 1000,
        signal: this.#abort.signal,
        tls: this.#deps.tls,
        onProgress: () => this.progress(startStep, "load"),
      });
      return { centers, drawn: [] };
    }
    const load: Load = async (request) => {
      const { checkpoints, logger } = this.#deps;
      const loaded = await checkpoints.load(request, () => this.progress(startStep, "load"));
      for (const damage of loaded.damages) logger.error({ damage }, "read from its replica");
      return loaded;
    };
    if (!loadCheckpoint) return await loadInitial(shards, load);
    const source = { directory: this.#checkpointDirectory(startStep), sha256: manifestSha256 };
    return { centers: await loadState(shards, source, load), drawn: [] };
  }

  #outcomeOf(
    report: StepReport & DeviceBytes,
    dataSeconds: number,
  ): Omit<StepOutcome, "offenders"> {
    const { spec, exchange } = this.#deps;
    const { sentBytes } = exchange.stats;
    const exchangeBytes = sentBytes - this.#sentBytes;
    this.#sentBytes = sentBytes;
    const { losses, monitors, normRoots, finite, peakGatheredBytes } = report;
    return {
      finite,
      losses: [...losses],
      monitors: [...monitors],
      normRoots: [...normRoots],
      // Update and commit of this step are still to come: those of the step before stand in for them.
      seconds: {
        ...report.seconds,
        data: dataSeconds,
        update: this.#updateSeconds,
        commit: this.#commitSeconds,
      },
      exchangeBytes,
      peakGatheredBytes,
      stateBytes: keptShards(this.shards).reduce((sum, { state }) => sum + stateBytes(state), 0),
      images: this.#ranks.length * spec.batchPerRank,
      eventLoopP99Ms: this.#deps.eventLoopP99Ms(),
      badImages: this.#deps.badImages(),
      deviceAllocatedBytes: report.deviceAllocatedBytes,
      devicePeakBytes: report.devicePeakBytes,
      deviceReservedBytes: report.deviceReservedBytes,
    };
  }

  /** Makes the shards readable by the peers as weights of `step`; older ones are no longer needed by anybody. */
  async #publish(step: number, readers: Readers): Promise<void> {
    const { engine, exchange } = this.#deps;
    const { generation, workers } = this.membership;
    if (workers === 1) return;
    const parts = await engine.call("encodeWeights", {});
    await failpoint("worker.publish.begun");
    await exchange.publish({ generation, step, key: "weights" }, parts, readers);
    await failpoint("worker.publish.done");
    // A peer may still read the weights of the step that this one follows (its evaluation, a late gather).
    await exchange.retire(step - 1);
  }

  #checkpointDirectory(step: number): string {
    return childOf(this.#deps.checkpointRoot, String(step));
  }
}

function secondsSince(start: number): number {
  return (performance.now() - start) / 1000;
}
