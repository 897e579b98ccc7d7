/** A coordinator's trace: the ledger's rules after every event, and what the run's other processes are compared with. */
import {
  type DurableState,
  decide,
  type Effect,
  foldRecord,
  initialState,
  type RunEvent,
  type RunRecord,
  type RunState,
  traced,
} from "@paddock/coordinator/protocol";
import { digestOf, type TraceHead } from "@paddock/service-kit";
import { demandAppendable, demandHolders, demandKept, demandSendable } from "./ledger-rules.js";
import { assigned, decided, hello, prepared, processOf, resting, saved } from "./message-keys.js";
import { type Replayer, reporting } from "./replay-trace.js";
import { demand } from "./violation.js";

type Of<Kind extends Effect["kind"]> = Extract<Effect, { kind: Kind }>;

export class CoordinatorReplay implements Replayer {
  readonly first;
  readonly startMs: number;
  /** What it found in the ledger. */
  readonly found: DurableState;
  /** The fold of all that is certainly in the ledger: effects of an event are carried out before the next one is dealt with. */
  sure: DurableState;
  /** What the last event appends, in order: a killed process may have appended only the first of it. */
  unsure: RunRecord[] = [];
  readonly records: RunRecord[] = [];
  /** "process: message" that it heard, and that it sent. */
  readonly heard = new Set<string>();
  readonly said = new Set<string>();
  /** Steps taken back by a generation that starts from a checkpoint. */
  rollbacks = 0;
  /** Failures and lost leases of workers, and their wish to go: what may cost committed steps. */
  excuses = 0;
  #state: RunState;
  #ledger: DurableState;
  #effects: readonly Effect[] = [];
  #event: RunEvent | undefined;
  #nowMs: number;
  #lastMs: number;
  readonly #sessions = new Map<number, string>();
  readonly #files = new Set<string>();
  readonly #manifests = new Set<string>();

  constructor(head: TraceHead) {
    const { durable, now } = head.initial as { durable: DurableState; now: number };
    this.found = this.sure = this.#ledger = durable;
    this.#state = initialState(durable, now);
    this.first = traced({ state: this.#state, effects: [] });
    this.startMs = this.#nowMs = this.#lastMs = now;
  }

  get runId(): string {
    return this.found.runId;
  }

  get steps(): number {
    return this.records.filter(({ kind }) => kind === "commit").length;
  }

  decide(event: unknown, now: number | null) {
    this.#event = event as RunEvent;
    [this.#lastMs, this.#nowMs] = [this.#nowMs, now ?? 0];
    const { state, effects } = decide(this.#state, this.#event, this.#nowMs);
    [this.#state, this.#effects] = [state, effects];
    return traced({ state, effects });
  }

  check(violate: (what: string) => void): void {
    const event = this.#event as RunEvent;
    reporting(violate, () => demand(this.#lastMs <= this.#nowMs, "time does not go back"));
    // An effect that could not be carried out is no better than a killed process.
    if (event.kind !== "broken") {
      this.sure = this.#ledger;
      this.unsure = [];
    }
    this.#hear(event);
    for (const effect of this.#effects) reporting(violate, () => this.#checkEffect(effect));
    reporting(violate, () => this.#checkState());
  }

  /** What a worker says is taken for said by its process, in whatever session. */
  #hear(event: RunEvent): void {
    if (event.kind === "joined") {
      const { id, holdings } = event.worker;
      const who = processOf(event.worker);
      this.#sessions.set(id, who);
      this.heard.add(`${who}: ${hello(holdings)}`);
    }
    if (event.kind === "manifest-written") this.#manifests.add(saved(event));
    if (!("id" in event)) return;
    const who = this.#sessions.get(event.id);
    if (event.kind === "prepared") this.heard.add(`${who}: ${prepared(event.prepared)}`);
    if (event.kind === "held") this.heard.add(`${who}: ${resting(event.held)}`);
    if (event.kind === "checkpoint-written") {
      this.#files.add(`${saved(event.written)} ${event.written.file}`);
      this.heard.add(`${who}: ${saved(event.written)}`);
    }
    if (event.kind === "failed" || event.kind === "leaving") this.excuses++;
  }

  #checkEffect(effect: Effect): void {
    switch (effect.kind) {
      case "append":
        this.#append(effect.record);
        break;
      case "send":
        this.#send(effect);
        break;
      case "dismiss":
        if (effect.code !== undefined) this.excuses++;
        break;
      case "write-manifest":
        this.#checkManifest(effect);
        break;
      case "keep-checkpoints":
        demandKept(this.#ledger, effect.steps);
        break;
      default:
        break;
    }
  }

  #append(record: RunRecord): void {
    const before = this.#ledger;
    this.#ledger = foldRecord(before, record);
    this.records.push(record);
    this.unsure.push(record);
    if (record.kind === "generation" && record.step < before.next) this.rollbacks++;
    demandAppendable(before, record);
    if (record.kind === "checkpoint") {
      const isThere = this.#manifests.has(saved(record));
      demand(isThere, `the manifest of step ${record.step} is on disk when it is recorded`);
    }
  }

  #send({ id, message }: Of<"send">): void {
    const who = this.#sessions.get(id);
    if (message.kind === "decision") this.said.add(`${who}: ${decided(message.decision)}`);
    if (message.kind === "assignment") this.said.add(`${who}: ${assigned(message.assignment)}`);
    demandSendable(this.#ledger, message);
    demandHolders(this.#state.workers, message);
  }

  #checkManifest({ manifest }: Of<"write-manifest">): void {
    const { step, workers, files } = manifest;
    const known = files.filter(({ name }) => this.#files.has(`${saved(manifest)} ${name}`));
    demand(known.length === workers, `manifest of step ${step}: all ${workers} files are there`);
  }

  #checkState(): void {
    const { durable, outcome, active } = this.#state;
    if (this.unsure.length > 0) {
      const isFold = digestOf(durable) === digestOf(this.#ledger);
      demand(isFold, "what is in memory is the fold of what was appended");
    }
    if (active) demand(active.generation === durable.generation, "the newest generation works");
    if (outcome?.kind !== "finished") return;
    const { steps } = durable.spec;
    demand(durable.next === steps, "a finished run has committed all its steps");
    demand(durable.checkpoints.at(-1)?.step === steps, "its last checkpoint is durable");
  }
}
