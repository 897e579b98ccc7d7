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
  type Decision,
  DecisionKind,
  type Holding,
  type LiveSource,
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
  /** Of the assignment: committed steps that its shards have, decisions so far, and whether the next step is prepared. */
  step: number;
  decided: number;
  isPrepared: boolean;
  /** What it holds from before the assignment. */
  holdings: readonly Holding[];
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
  readonly #said: (prepared: Prepared, id: WorkerId) => Prepared;
  #lastId = 0;

  /** @param said what workers say about a step, made of what example workers would say */
  constructor(
    spec: RunSpec,
    said: (prepared: Prepared, id: WorkerId) => Prepared = (prepared) => prepared,
  ) {
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

  /** @param holdings what it holds from before */
  join(holdings: readonly Holding[] = []): WorkerId {
    this.#lastId += 1;
    const id = this.#lastId;
    const idle = { assignment: null, step: 0, decided: 0, isPrepared: false };
    this.workers.push({ id, inbox: [], outbox: [], ...idle, holdings });
    const worker = { id, name: `w${id}`, host: "h", pid: id, engine: "e", device: "d" };
    this.post({ kind: "joined", worker: { ...worker, peerAddress: `h:${id}`, holdings } });
    return id;
  }

  /** Its connection breaks: what was on its way is lost; it comes back with what it holds. */
  cut(id: WorkerId): void {
    const worker = this.#find(id);
    if (!worker) return;
    this.kill(id);
    this.#rest(worker);
    this.join(worker.holdings);
  }

  /** The coordinator is killed and started again: all connections break, the workers come back with what they hold. */
  restart(): void {
    const survivors = this.workers.splice(0);
    this.manifests.splice(0);
    this.state = initialState(this.folded(), this.nowMs);
    for (const worker of survivors) {
      this.#rest(worker);
      this.join(worker.holdings);
    }
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

  /** Lets the run go on until `steps` are committed, and no further. */
  runTo(steps: number): void {
    for (let i = 0; i < 10_000 && this.state.durable.next < steps; i++) {
      this.nowMs += 1;
      for (const { id } of [...this.workers]) {
        this.read(id);
        if (this.state.durable.next < steps) this.deliver(id);
      }
      this.finishManifest(0);
    }
  }

  #find(id: WorkerId): ModelWorker | undefined {
    return this.workers.find((worker) => worker.id === id);
  }

  #begin(worker: ModelWorker, assignment: Assignment): void {
    const { generation, startStep: step, evaluateFirst, checkpointFirst, live } = assignment;
    if (live) this.#checkSource(live, step);
    worker.holdings = worker.holdings.filter(
      (held) => held.generation === live?.generation && held.step === step,
    );
    Object.assign(worker, { assignment, step, decided: 0, isPrepared: false });
    const progress = { generation, step, phase: "load", waitingOn: [] };
    worker.outbox.push({ kind: "progress", id: worker.id, progress });
    if (assignment.loadCheckpoint) invariant(this.folders.has(step), `checkpoint ${step} is there`);
    if (checkpointFirst) this.#write(worker, assignment, step);
    if (evaluateFirst) this.#evaluate(worker, assignment, step);
    this.#prepare(worker, assignment, step);
  }

  /** Whoever is named holds what it is named for, or is gone. */
  #checkSource({ generation, workers, holders }: LiveSource, step: number): void {
    invariant(holders.length === workers, "every shard has a holder");
    for (const { worker: shard, peerAddress } of holders) {
      const holder = this.#find(Number(peerAddress.split(":")[1]));
      const holds = holder?.holdings.some(
        (held) =>
          held.generation === generation &&
          held.step === step &&
          held.workers === workers &&
          (held.worker === shard || held.shadow === shard),
      );
      // It may have committed meanwhile, which all have loaded for, or have gone.
      invariant(!holder || holds || holder.decided > 0, `${peerAddress} holds shard ${shard}`);
    }
  }

  /** Its generation is over: its shards are held, if they were ever those of a decided or prepared step. */
  #rest(worker: ModelWorker): void {
    const { assignment, step, decided, isPrepared } = worker;
    worker.assignment = null;
    if (!assignment || (decided === 0 && !isPrepared)) return;
    const { generation, worker: index, workers, shadow } = assignment;
    const held = { generation, worker: index, workers, shadow, runId: "r" };
    worker.holdings = [...worker.holdings, { ...held, step, prepared: isPrepared }];
  }

  #sayHeld({ id, outbox, holdings }: ModelWorker, generation: number): void {
    outbox.push({ kind: "held", id, held: { generation, holdings: [...holdings] } });
  }

  #obey(worker: ModelWorker, decision: Decision): void {
    const { assignment } = worker;
    const { generation } = decision;
    if (decision.kind === DecisionKind.DECISION_KIND_ABORT) {
      this.#rest(worker);
      this.#sayHeld(worker, generation);
      return;
    }
    if (!assignment) {
      this.#catchUp(worker, decision);
      return;
    }
    Object.assign(worker, {
      holdings: [],
      step: decision.step + 1,
      decided: worker.decided + 1,
      isPrepared: false,
    });
    const next = decision.step + 1;
    if (decision.checkpoint) this.#write(worker, assignment, next);
    if (decision.evaluate) this.#evaluate(worker, assignment, next);
    if (!decision.stop) this.#prepare(worker, assignment, next);
  }

  #catchUp(worker: ModelWorker, { generation, step }: Decision): void {
    const held = worker.holdings.find((h) => h.generation === generation && h.step === step);
    invariant(held?.prepared, "only who has prepared a step is told about it again");
    worker.holdings = [{ ...held, step: step + 1, prepared: false }];
    this.#sayHeld(worker, generation);
  }

  #prepare(model: ModelWorker, assignment: Assignment, step: number): void {
    const { id, outbox } = model;
    const { generation, worker, workers, rankCuts: cuts } = assignment;
    if (step >= this.spec.steps) return;
    model.isPrepared = true;
    const position = { generation, step, worker, workers, cuts };
    const prepared = this.#said(examplePrepared(this.spec, this.#layout, position), id);
    outbox.push({ kind: "prepared", id, prepared });
  }

  #write({ id, outbox }: ModelWorker, { generation, worker }: Assignment, step: number): void {
    this.folders.add(step);
    const noHead = { headBytes: 0, headSha256: "", ghash: "" };
    const file = { file: `g${generation}-w${worker}`, bytes: 1, sha256: "", worker, ...noHead };
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
