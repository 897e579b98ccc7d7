/**
 * Exchange through collectives of the engine: weights and gradients go from memory to memory, all workers at once.
 *
 * What a worker does by itself (evaluation, pictures, the rendezvous) has no counterpart on the others, so it stays with
 * Redis, and so does everything where one of the workers has no Gloo. The values are the same on both ways.
 */
import { hostname } from "node:os";
import { invariant, PaddockError } from "@paddock/contract";
import {
  CollectiveError,
  type CollectiveErrorCode,
  type Group,
  openGroup,
  whyNoGroups,
} from "@paddock/engine";
import type { Exchange, ExchangeKey, ExchangeStats, Readers } from "./exchange.js";
import { createRedisExchange, type RedisExchangeOptions } from "./redis-exchange.js";
import { meet } from "./rendezvous.js";

export interface CollectiveExchangeOptions extends RedisExchangeOptions {
  /** Address of this machine at which the other workers reach it. */
  readonly host: string;
  /** Why this worker takes no part, if it must not. */
  readonly collectivesRefused?: string | undefined;
  /** Told once: undefined when all workers are connected, else why tensors go through Redis after all. */
  readonly onMeeting: (why: string | undefined) => void;
}

/** An exchange for one generation. The caller closes it. */
export function createCollectiveExchange(options: CollectiveExchangeOptions): Exchange {
  return new CollectiveExchange(options);
}

/** Of the time for a peer: connecting must fail early enough for the others to hear of it in theirs. */
const connectShare = 1 / 3;

interface Published {
  readonly step: number;
  readonly parts: ReadonlyMap<string, Uint8Array>;
}

class CollectiveExchange implements Exchange {
  readonly #o: CollectiveExchangeOptions;
  readonly #redis: Exchange;
  #group: Group | undefined;
  #worker = 0;
  #workers = 0;
  /** Operations under way. */
  #operations = 0;
  #generation = 0;
  #receivedBytes = 0;
  #closed = false;
  /** What this worker gives when all gather. */
  #published: readonly Published[] = [];

  constructor(options: CollectiveExchangeOptions) {
    this.#o = options;
    this.#redis = createRedisExchange(options);
  }

  get stats(): ExchangeStats {
    const { sentBytes, receivedBytes, inFlightBytes } = this.#redis.stats;
    return {
      sentBytes: sentBytes + (this.#group?.sentBytes ?? 0),
      receivedBytes: receivedBytes + this.#receivedBytes,
      inFlightBytes,
    };
  }

  async enter(generation: number, worker: number, workers: number): Promise<void> {
    await this.#redis.enter(generation, worker, workers);
    this.#worker = worker;
    this.#workers = workers;
    this.#generation = generation;
    const missing = this.#o.collectivesRefused ?? whyNoGroups();
    if (missing === undefined && !this.#closed) {
      const { timeoutMs } = this.#o;
      const connectMs = timeoutMs * connectShare;
      // Peers cannot reach "all interfaces": they are told of the one that bears this machine's name.
      const host = /^(0\.0\.0\.0|::)$/.test(this.#o.host) ? hostname() : this.#o.host;
      this.#group = openGroup({ rank: worker, size: workers, host, timeoutMs, connectMs });
    }
    const group = this.#group ?? missing ?? "its exchange was closed";
    const messages = this.#redis;
    const why = await meet({ messages, generation, worker, workers, group }).catch(rethrow);
    if (why !== undefined) {
      this.#group?.close(why);
      this.#group = undefined;
    }
    this.#o.onMeeting(why);
  }

  async allToAll(
    key: ExchangeKey,
    outgoing: readonly Uint8Array[],
    expectedBytes: readonly number[],
  ): Promise<Uint8Array[]> {
    const group = this.#group;
    if (!group) return await this.#redis.allToAll(key, outgoing, expectedBytes);
    const incoming = expectedBytes.map((bytes) => sharedBytes(bytes));
    await this.#together(key, group.allToAll(labelOf(key), outgoing, incoming));
    return this.#counted(incoming);
  }

  async gather(
    key: ExchangeKey,
    part: string,
    expectedBytes: readonly number[],
  ): Promise<Uint8Array[]> {
    const group = this.#group;
    if (!group) return await this.#redis.gather(key, part, expectedBytes);
    const own = this.#published.find(({ step }) => step === key.step)?.parts.get(part);
    invariant(own, `${part} of step ${key.step} is published before it is gathered`);
    const incoming = expectedBytes.map((bytes, worker) =>
      worker === this.#worker ? own : sharedBytes(bytes),
    );
    await this.#together(key, group.allGather(`${labelOf(key)} ${part}`, own, incoming));
    incoming[this.#worker] = new Uint8Array(0);
    return this.#counted(incoming);
  }

  async publish(
    key: ExchangeKey,
    parts: ReadonlyMap<string, Uint8Array>,
    readers: Readers,
  ): Promise<void> {
    this.#published = [...this.#published.slice(-1), { step: key.step, parts }];
    if (!this.#group || readers === "anyone") await this.#redis.publish(key, parts, readers);
  }

  send(key: ExchangeKey, to: number, payload: Uint8Array): Promise<void> {
    return this.#redis.send(key, to, payload);
  }

  receive(key: ExchangeKey, from: number): Promise<Uint8Array> {
    return this.#redis.receive(key, from);
  }

  fetch(key: ExchangeKey, from: number, part: string): Promise<Uint8Array> {
    return this.#redis.fetch(key, from, part);
  }

  async retire(step: number): Promise<void> {
    this.#published = this.#published.filter((published) => published.step >= step);
    await this.#redis.retire(step);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#group?.close(`generation ${this.#generation} is over for this worker`);
    await this.#redis.close();
  }

  async #together(key: ExchangeKey, work: Promise<void>): Promise<void> {
    invariant(key.generation === this.#generation, `generation ${key.generation} was entered`);
    this.#operations++;
    try {
      await work.catch(rethrow);
    } finally {
      this.#operations--;
    }
  }

  /** An operation of all workers does not say whom it lacks: it may be any of them. */
  waitingOn(): readonly number[] {
    if (this.#operations === 0) return this.#redis.waitingOn();
    return [...Array(this.#workers).keys()].filter((peer) => peer !== this.#worker);
  }

  #counted(incoming: Uint8Array[]): Uint8Array[] {
    for (const bytes of incoming) this.#receivedBytes += bytes.byteLength;
    return incoming;
  }
}

const remedies: Readonly<Record<CollectiveErrorCode, string>> = {
  "worker-lost": "the run goes on from its last checkpoint with the workers that are left",
  "exchange-timeout":
    "is it stopped, or much slower than this one? If steps take that long, raise exchange.timeoutSeconds",
  "exchange-corrupt": "were all workers built from the same commit and given the same spec?",
  "stale-generation": "it must be assigned anew",
  "engine-unavailable": "set exchange.kind to redis",
};

function rethrow(thrown: unknown): never {
  if (!(thrown instanceof CollectiveError)) throw thrown;
  const { code, message } = thrown;
  throw new PaddockError(code, `${message}; ${remedies[code]}`, { cause: thrown });
}

function labelOf({ step, key }: ExchangeKey): string {
  return `${key} of step ${step}`;
}

function sharedBytes(bytes: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(bytes));
}
