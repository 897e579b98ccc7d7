/** A whole run without time, network or disk: `decide`, model workers, and a scheduler that the test holds in its hand. */
import {
  invariant,
  type Layout,
  layoutOf,
  type Manifest,
  type RunSpec,
  type StepRecord,
} from "@paddock/contract";
import {
  type Assignment,
  type CoordinatorMessage,
  DecisionKind,
  type Prepared,
} from "@paddock/proto";
import { decide } from "../run/decide.js";
import { type DurableState, fold, type RunRecord } from "../run/durable.js";
import type { Effect, RunEvent } from "../run/event.js";
import { initialState, type RunState, type WorkerId } from "../run/state.js";
import { examplePrepared } from "./example.js";

/** A worker as the protocol sees it: messages that wait to be read, and messages that are on their way. */
interface ModelWorker {
  readonly id: WorkerId;
  readonly inbox: CoordinatorMessage[];
  readonly outbox: RunEvent[];
  assignment: Assignment | null;
}

export class World {
  readonly spec: RunSpec;
  readonly records: RunRecord[];
  readonly workers: ModelWorker[] = [];
  readonly steps: StepRecord[] = [];
  /** Manifests that are being written. */
  readonly manifests: Manifest[] = [];
  /** Checkpoint folders on disk, finished or not. */
  readonly folders = new Set<number>();
  state: RunState;
  nowMs = 1_000_000;
  readonly #layout: Layout;
  readonly #said: (prepared: Prepared) => Prepared;
  #lastId = 0;

  /** @param said what workers say about a step, made of what example workers would say */
  constructor(spec: RunSpec, said: (prepared: Prepared) => Prepared = (prepared) => prepared) {
    this.#said = said;
    this.spec = spec;
    this.#layout = layoutOf(spec);
    this.records = [{ kind: "run", runId: "r", spec, unixMs: this.nowMs }];
    this.state = initialState(this.folded(), this.nowMs);
  }

  /** What the ledger says, from its first record on. */
  folded(): DurableState {
    const durable = fold(this.records);
    invariant(durable, "a ledger");
    return durable;
  }

  post(event: RunEvent): readonly Effect[] {
    const { state, effects } = decide(this.state, event, this.nowMs);
    this.state = state;
    for (const effect of effects) this.#carryOut(effect);
    return effects;
  }

  join(): WorkerId {
    this.#lastId += 1;
    const id = this.#lastId;
    this.workers.push({ id, inbox: [], outbox: [], assignment: null });
    const worker = { id, name: `w${id}`, host: "h", pid: id, engine: "e", device: "d" };
    this.post({ kind: "joined", worker: { ...worker, peerAddress: `h:${id}` } });
    return id;
  }

  /** Its messages so far may or may not have arrived; no more will. */
  kill(id: WorkerId): void {
    const index = this.workers.findIndex((worker) => worker.id === id);
    if (index < 0) return;
    this.workers.splice(index, 1);
    this.post({ kind: "gone", id, reason: "killed" });
  }

  /** The worker reads its next message, if there is one. */
  read(id: WorkerId): void {
    const worker = this.#find(id);
    const message = worker?.inbox.shift();
    if (!worker || !message) return;
    if (message.kind === "assignment") this.#begin(worker, message.assignment);
    else if (message.kind === "decision") this.#obey(worker, message.decision);
  }

  /** The worker's next message arrives, if there is one. */
  deliver(id: WorkerId): void {
    const event = this.#find(id)?.outbox.shift();
    if (event) this.post(event);
  }

  /** A manifest that is being written becomes durable. */
  finishManifest(index: number): void {
    const [manifest] = this.manifests.splice(index, 1);
    if (!manifest) return;
    const { generation, step } = manifest;
    this.post({ kind: "manifest-written", generation, step, sha256: `sha of ${step}` });
  }

  /** Everything but ledger, steps and checkpoints is lost. */
  crash(): void {
    this.workers.splice(0);
    this.manifests.splice(0);
    this.state = initialState(this.folded(), this.nowMs);
  }

  advance(ms: number): void {
    this.nowMs += ms;
    this.post({ kind: "tick" });
  }

  /**
   * Lets everything happen, in order, with time standing almost still, until nothing moves or the run has ended, or for
   * so many rounds: in each, every worker reads and sends one message, and one manifest becomes durable.
   */
  settle(rounds = 10_000): void {
    for (let round = 0; round < rounds && this.state.outcome === null; round++) {
      const isIdle =
        this.manifests.length === 0 &&
        this.workers.every(({ inbox, outbox }) => inbox.length + outbox.length === 0);
      if (isIdle) return;
      this.nowMs += 1;
      for (const { id } of [...this.workers]) this.read(id);
      for (const { id } of [...this.workers]) this.deliver(id);
      this.finishManifest(0);
    }
  }

  #find(id: WorkerId): ModelWorker | undefined {
    return this.workers.find((worker) => worker.id === id);
  }

  #begin(worker: ModelWorker, assignment: Assignment): void {
    worker.assignment = assignment;
    const { generation, startStep: step, evaluateFirst } = assignment;
    const progress = { generation, step, phase: "load" };
    worker.outbox.push({ kind: "progress", id: worker.id, progress });
    if (assignment.loadCheckpoint) invariant(this.folders.has(step), `checkpoint ${step} is there`);
    if (evaluateFirst) this.#evaluate(worker, assignment, step);
    this.#prepare(worker, assignment, step);
  }

  #obey(
    worker: ModelWorker,
    decision: {
      readonly step: number;
      readonly kind: DecisionKind;
      readonly checkpoint: boolean;
      readonly evaluate: boolean;
      readonly stop: boolean;
    },
  ): void {
    const { assignment } = worker;
    if (!assignment) return;
    if (decision.kind === DecisionKind.DECISION_KIND_ABORT) {
      worker.assignment = null;
      return;
    }
    const next = decision.step + 1;
    if (decision.checkpoint) this.#write(worker, assignment, next);
    if (decision.evaluate) this.#evaluate(worker, assignment, next);
    if (!decision.stop) this.#prepare(worker, assignment, next);
  }

  #prepare({ id, outbox }: ModelWorker, assignment: Assignment, step: number): void {
    const { generation, worker, workers } = assignment;
    const position = { generation, step, worker, workers };
    const prepared = this.#said(examplePrepared(this.spec, this.#layout, position));
    outbox.push({ kind: "prepared", id, prepared });
  }

  #write({ id, outbox }: ModelWorker, { generation, worker }: Assignment, step: number): void {
    this.folders.add(step);
    const file = { file: `g${generation}-w${worker}`, bytes: 1, sha256: "", worker };
    outbox.push({ kind: "checkpoint-written", id, written: { generation, step, ...file } });
  }

  #evaluate({ id, outbox }: ModelWorker, assignment: Assignment, step: number): void {
    if (assignment.worker !== 0) return;
    const { generation } = assignment;
    const result = { knnAccuracy: step / 1000, bank: 10, queries: 5, seconds: 1 };
    outbox.push({ kind: "evaluation-done", id, evaluation: { generation, step, ...result } });
  }

  #carryOut(effect: Effect): void {
    switch (effect.kind) {
      case "append":
        this.records.push(effect.record);
        break;
      case "send":
        this.#find(effect.id)?.inbox.push(effect.message);
        break;
      case "dismiss":
        this.#dismiss(effect.id);
        break;
      case "write-step":
        this.steps.push(effect.record);
        break;
      case "truncate-steps":
        this.steps.splice(this.steps.findIndex(({ step }) => step >= effect.step) >>> 0);
        break;
      case "write-manifest":
        this.manifests.push(effect.manifest);
        break;
      case "keep-checkpoints":
        for (const step of this.folders)
          if (!effect.steps.includes(step)) this.folders.delete(step);
        break;
      case "sync-steps":
      case "segments":
      case "log":
      case "end":
        break;
    }
  }

  #dismiss(id: WorkerId): void {
    const index = this.workers.findIndex((worker) => worker.id === id);
    if (index >= 0) this.workers.splice(index, 1);
  }
}
