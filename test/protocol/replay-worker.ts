/** A worker's trace: how many updates are in its shards, by generation, at everything that it does with them. */
import type { DecisionKind } from "@paddock/proto";
import type { TraceHead } from "@paddock/service-kit";
import {
  decideWorker,
  initialWorkerState,
  type WorkerEffect,
  type WorkerEvent,
  type WorkerState,
} from "@paddock/worker/protocol";
import { assigned, decided, hello, prepared, processOf, resting, saved } from "./message-keys.js";
import { type Replayer, reporting } from "./replay-trace.js";
import { demand } from "./violation.js";

type Facts = WorkerState["facts"];

interface WorkerTurn {
  readonly state: WorkerState;
  readonly effects: readonly WorkerEffect[];
}

/** A decision as a worker was told it. */
export interface Told {
  readonly key: string;
  readonly generation: number;
  readonly step: number;
  readonly kind: DecisionKind;
}

export class WorkerReplay implements Replayer {
  readonly first: WorkerTurn;
  readonly who: string;
  /** "process: message" that it said, and that it heard. */
  readonly said = new Set<string>();
  readonly heard = new Set<string>();
  readonly told: Told[] = [];
  /** Updates carried out. */
  steps = 0;
  #state: WorkerState;
  #effects: readonly WorkerEffect[] = [];
  #event: WorkerEvent | undefined;
  /** Of the generation that begins to load, or ran last. */
  #startStep: { readonly generation: number; readonly step: number } | undefined;
  /** Updates in the shards of each generation that it has. */
  readonly #contents = new Map<number, number>();

  constructor(head: TraceHead) {
    const facts = head.initial as Facts;
    const turn = initialWorkerState(facts);
    this.#state = turn.state;
    this.first = turn;
    this.who = processOf({ name: facts.workerName, ...facts });
  }

  get runId(): string {
    return this.#state.runId;
  }

  get hasEnded(): boolean {
    return this.#state.ended;
  }

  decide(event: unknown): WorkerTurn {
    this.#event = event as WorkerEvent;
    const turn = decideWorker(this.#state, this.#event);
    [this.#state, this.#effects] = [turn.state, turn.effects];
    return turn;
  }

  check(violate: (what: string) => void): void {
    reporting(violate, () => this.#checkEvent(this.#event as WorkerEvent));
    for (const effect of this.#effects) reporting(violate, () => this.#checkEffect(effect));
    for (const { generation, step } of this.#state.holdings) {
      reporting(violate, () => this.#demandContent(generation, step, "holds"));
    }
  }

  #checkEvent(event: WorkerEvent): void {
    if (event.kind === "message") this.#hear(event.message);
    if (event.kind === "loaded" && this.#startStep?.generation === event.generation) {
      this.#contents.set(event.generation, this.#startStep.step);
    }
    if (event.kind === "applied") {
      this.steps++;
      this.#demandContent(event.generation, event.step, "has applied");
      this.#contents.set(event.generation, event.step + 1);
    }
  }

  #hear(message: Extract<WorkerEvent, { kind: "message" }>["message"]): void {
    if (message.kind === "assignment") {
      this.heard.add(`${this.who}: ${assigned(message.assignment)}`);
    } else if (message.kind === "decision") {
      const { generation, step, kind } = message.decision;
      const key = `${this.who}: ${decided(message.decision)}`;
      this.heard.add(key);
      this.told.push({ key, generation, step, kind });
    }
  }

  #checkEffect(effect: WorkerEffect): void {
    switch (effect.kind) {
      case "send":
        this.#say(effect.message);
        break;
      case "load": {
        const { generation, startStep: step } = effect.assignment;
        this.#startStep = { generation, step };
        break;
      }
      case "compute":
        this.#demandContent(effect.generation, effect.step, "computes");
        break;
      case "apply":
        this.#demandContent(effect.decision.generation, effect.decision.step, "applies");
        break;
      case "checkpoint":
        this.said.add(`${this.who}: ${saved(effect)}`);
        this.#demandContent(effect.generation, effect.step, "saves");
        break;
      case "forget":
        this.#contents.delete(effect.generation);
        break;
      default:
        break;
    }
  }

  #say(message: Extract<WorkerEffect, { kind: "send" }>["message"]): void {
    if (message.kind === "hello") this.said.add(`${this.who}: ${hello(message.hello.holdings)}`);
    if (message.kind === "prepared") this.said.add(`${this.who}: ${prepared(message.prepared)}`);
    if (message.kind === "held") this.said.add(`${this.who}: ${resting(message.held)}`);
  }

  #demandContent(generation: number, step: number, does: string): void {
    const has = this.#contents.get(generation);
    demand(
      has === step,
      `a worker ${does} step ${step} of generation ${generation} with ${has ?? "no"} updates in its shards`,
    );
  }
}
