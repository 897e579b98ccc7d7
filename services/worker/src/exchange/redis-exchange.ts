/**
 * Exchange through Redis: a BullMQ job is the ticket (a reference with size and checksum), the payload is a raw value beside it.
 *
 * Tickets go to the receiver's queue of the generation; its consumer takes sent payloads out of Redis at once and keeps
 * announcements of published ones. So Redis holds what is published plus what is in flight, see `redisMemoryBound`.
 */
import { type PaddockError as Failure, PaddockError } from "@paddock/contract";
import { Queue, UnrecoverableError, Worker } from "bullmq";
import { Redis } from "ioredis";
import type { Exchange, ExchangeKey } from "./exchange.js";
import { InFlight } from "./in-flight.js";
import { Mailbox } from "./mailbox.js";
import { type PayloadRef, PayloadStore } from "./payload-store.js";

export interface RedisExchangeOptions {
  readonly redisUrl: string;
  readonly runId: string;
  /** Bytes of unread payload that this worker may keep in Redis. */
  readonly maxInFlightBytes: number;
  /** Longest wait for a peer or for Redis. */
  readonly timeoutMs: number;
}

/** The JSON of a job. Never holds tensors. */
interface Ticket {
  readonly generation: number;
  readonly step: number;
  readonly key: string;
  readonly from: number;
  /** One payload that was sent (part null), or the parts that were published. */
  readonly payloads: readonly (PayloadRef & { readonly part: string | null })[];
}

/**
 * Most bytes a run keeps in Redis: published student and teacher of two steps, each worker's unread payloads, and BullMQ's
 * tickets and scripts (8 MiB allows for a queue per worker with its last finished jobs).
 */
export function redisMemoryBound(o: {
  readonly parameters: number;
  readonly workers: number;
  readonly dtypeBytes: number;
  readonly maxInFlightBytes: number;
}): number {
  return 2 * 2 * o.parameters * o.dtypeBytes + o.workers * o.maxInFlightBytes + 8 * 2 ** 20;
}

export function createRedisExchange(options: RedisExchangeOptions): Exchange {
  return new RedisExchange(options);
}

class RedisExchange implements Exchange {
  readonly #o: RedisExchangeOptions;
  readonly #redis: Redis;
  /** Blocking reads and subscriptions need connections of their own. */
  readonly #blocking: Redis;
  readonly #subscriber: Redis;
  readonly #store: PayloadStore;
  readonly #inFlight: InFlight;
  readonly #mail = new Mailbox<Uint8Array>();
  readonly #announced = new Mailbox<ReadonlyMap<string, PayloadRef>>();
  readonly #queues = new Map<number, Queue<Ticket>>();
  readonly #published: { readonly step: number; readonly refs: readonly PayloadRef[] }[] = [];
  readonly #closed = new AbortController();
  #consumer: Worker<Ticket> | undefined;
  #generation = 0;
  #worker = 0;
  #workers = 1;
  #sentBytes = 0;
  #receivedBytes = 0;

  constructor(options: RedisExchangeOptions) {
    this.#o = options;
    const connect = (): Redis => {
      const redis = new Redis(options.redisUrl, { maxRetriesPerRequest: null });
      // A lost connection shows as a timeout of whoever needs it; ioredis reconnects by itself.
      redis.on("error", () => undefined);
      return redis;
    };
    this.#redis = connect();
    this.#blocking = connect();
    this.#subscriber = connect();
    this.#store = new PayloadStore(this.#redis, options.runId);
    this.#inFlight = new InFlight(options.maxInFlightBytes, (refs) => this.#store.unread(refs));
  }

  get stats() {
    return {
      sentBytes: this.#sentBytes,
      receivedBytes: this.#receivedBytes,
      inFlightBytes: this.#inFlight.bytes,
    };
  }

  async enter(generation: number, worker: number, workers: number): Promise<void> {
    this.#generation = generation;
    this.#worker = worker;
    this.#workers = workers;
    await this.#deadline(`entering generation ${generation}`, this.#store.enter(generation));
    this.#subscriber.on("message", (_channel, name) => this.#inFlight.acknowledged(name));
    await this.#deadline("subscribing", this.#subscriber.subscribe(this.#ackChannel(worker)));
    this.#consumer = new Worker<Ticket>(this.#queueName(worker), ({ data }) => this.#take(data), {
      connection: this.#blocking,
      concurrency: 16,
      // Tickets are never retried: a payload is read once, and a wait that gets nothing reports it.
      maxStalledCount: 0,
    });
    this.#consumer.on("error", () => undefined);
  }

  async send(key: ExchangeKey, to: number, payload: Uint8Array): Promise<void> {
    this.#checkGeneration(key);
    await this.#inFlight.reserve(payload.byteLength, this.#closed.signal);
    const name = `${nameOf(key, this.#worker)}>${to}`;
    try {
      const writing = this.#store.write(key.generation, name, payload);
      const ref = await this.#deadline(
        `sending ${key.key} of step ${key.step} to worker ${to}`,
        writing,
      );
      this.#inFlight.sent(ref);
      await this.#ticket(key, to, [{ ...ref, part: null }]);
      this.#sentBytes += payload.byteLength;
    } catch (error) {
      this.#inFlight.cancelled(name, payload.byteLength);
      throw error;
    }
  }

  async receive(key: ExchangeKey, from: number): Promise<Uint8Array> {
    this.#checkGeneration(key);
    const name = nameOf(key, from);
    const payload = await this.#mail.peek(name, this.#o.timeoutMs, () => this.#expired(key, from));
    this.#mail.delete(name);
    return payload;
  }

  async publish(key: ExchangeKey, parts: ReadonlyMap<string, Uint8Array>): Promise<void> {
    this.#checkGeneration(key);
    const writes = [...parts].map(async ([part, payload]) => {
      const name = `${nameOf(key, this.#worker)}:${part}`;
      const ref = await this.#store.write(key.generation, name, payload);
      this.#sentBytes += payload.byteLength;
      return { ...ref, part };
    });
    const payloads = await this.#deadline(
      `publishing ${key.key} of step ${key.step}`,
      Promise.all(writes),
    );
    this.#published.push({ step: key.step, refs: payloads });
    const peers = Array.from({ length: this.#workers }, (_, peer) => peer);
    await Promise.all(
      peers
        .filter((peer) => peer !== this.#worker)
        .map((peer) => this.#ticket(key, peer, payloads)),
    );
  }

  async fetch(key: ExchangeKey, from: number, part: string): Promise<Uint8Array> {
    this.#checkGeneration(key);
    const name = nameOf(key, from);
    const parts = await this.#announced.peek(name, this.#o.timeoutMs, () =>
      this.#expired(key, from),
    );
    const ref = parts.get(part);
    if (!ref) {
      throw new PaddockError(
        "exchange-corrupt",
        `${name}: expected a part "${part}", received ${[...parts.keys()].join(", ")}`,
      );
    }
    const payload = await this.#deadline(
      `fetching ${part} of worker ${from}`,
      this.#store.read(ref, false),
    );
    this.#receivedBytes += payload.byteLength;
    return payload;
  }

  async retire(step: number): Promise<void> {
    const old = this.#published.filter((entry) => entry.step < step);
    this.#published.splice(
      0,
      this.#published.length,
      ...this.#published.filter((entry) => entry.step >= step),
    );
    const isOld = (name: string): boolean => Number(name.split(".")[1]) < step;
    this.#announced.prune(isOld);
    this.#mail.prune(isOld);
    await this.#store.remove(old.flatMap((entry) => entry.refs));
  }

  async close(): Promise<void> {
    const reason = new PaddockError(
      "stale-generation",
      `generation ${this.#generation} is over for this worker`,
    );
    this.#closed.abort(reason);
    this.#mail.close(reason);
    this.#announced.close(reason);
    // Forced: what the consumer still holds belongs to a generation that is over.
    await this.#consumer?.close(true).catch(() => undefined);
    await Promise.all(
      [...this.#queues.values()].map((queue) => queue.close().catch(() => undefined)),
    );
    for (const redis of [this.#redis, this.#blocking, this.#subscriber]) redis.disconnect();
  }

  /** Takes a ticket: fetches what was sent, notes what was published. */
  async #take(ticket: Ticket): Promise<void> {
    if (ticket.generation !== this.#generation) return;
    const name = nameOf(ticket, ticket.from);
    const [first] = ticket.payloads;
    if (first?.part !== null) {
      this.#announced.put(name, new Map(ticket.payloads.map((ref) => [ref.part ?? "", ref])));
      return;
    }
    if (this.#mail.has(name)) return;
    try {
      const payload = await this.#store.read(first, true);
      this.#receivedBytes += payload.byteLength;
      this.#mail.put(name, payload);
      await this.#redis.publish(this.#ackChannel(ticket.from), first.name);
    } catch (thrown) {
      const error = PaddockError.from(thrown, "redis-unavailable");
      this.#mail.fail(name, error);
      const failure = new UnrecoverableError(error.message);
      failure.cause = error;
      throw failure;
    }
  }

  async #ticket(key: ExchangeKey, to: number, payloads: Ticket["payloads"]): Promise<void> {
    let queue = this.#queues.get(to);
    if (!queue) {
      queue = new Queue<Ticket>(this.#queueName(to), { connection: this.#redis });
      queue.on("error", () => undefined);
      this.#queues.set(to, queue);
    }
    const ticket: Ticket = { ...key, from: this.#worker, payloads };
    const adding = queue.add("ticket", ticket, {
      // The same message twice is one message.
      jobId: `${key.step}-${key.key}-${this.#worker}`,
      removeOnComplete: { count: 64 },
      removeOnFail: { count: 64 },
    });
    await this.#deadline(`announcing ${key.key} of step ${key.step} to worker ${to}`, adding);
  }

  #checkGeneration({ generation }: ExchangeKey): void {
    this.#closed.signal.throwIfAborted();
    if (generation === this.#generation) return;
    throw new PaddockError(
      "stale-generation",
      `expected generation ${this.#generation}, received ${generation}`,
    );
  }

  #expired(key: ExchangeKey, from: number): Failure {
    if (this.#redis.status !== "ready")
      return this.#unavailable(`waiting for ${key.key} of step ${key.step}`);
    const seconds = this.#o.timeoutMs / 1000;
    return new PaddockError(
      "exchange-timeout",
      `step ${key.step}: waited ${seconds} s for ${key.key} from worker ${from}; is it stopped or much slower? (exchange.timeoutSeconds)`,
    );
  }

  #unavailable(what: string): Failure {
    const { host } = new URL(this.#o.redisUrl);
    return new PaddockError(
      "redis-unavailable",
      `${what}: expected an answer from Redis at ${host} within ${this.#o.timeoutMs / 1000} s, received none; start it again, then resume the run from its last checkpoint`,
    );
  }

  /** Redis commands wait for a reconnection without end; nothing here does. */
  async #deadline<T>(what: string, work: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(this.#unavailable(what)), this.#o.timeoutMs);
    });
    try {
      return await Promise.race([work, expired]);
    } finally {
      clearTimeout(timer);
    }
  }

  #queueName(worker: number): string {
    return `paddock-x-${this.#o.runId}-g${this.#generation}-w${worker}`;
  }

  #ackChannel(worker: number): string {
    return `paddock:${this.#o.runId}:ack:g${this.#generation}:w${worker}`;
  }
}

/** "<generation>.<step>.<key>.<from>" */
function nameOf({ generation, step, key }: ExchangeKey, from: number): string {
  return `${generation}.${step}.${key}.${from}`;
}
