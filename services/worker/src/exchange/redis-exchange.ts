/**
 * Exchange through Redis: a BullMQ job is the ticket (a reference with size and checksum), the payload is a raw value beside it.
 *
 * Tickets go to the receiver's queue of the generation; its consumer takes sent payloads out of Redis at once and keeps
 * announcements of published ones. So Redis holds what is published plus what is in flight, see `redisMemoryBound`.
 */
import { invariant, PaddockError } from "@paddock/contract";
import type { Redis } from "ioredis";
import type { WaitLimit } from "./byte-budget.js";
import type { Exchange, ExchangeKey, ExchangeStats } from "./exchange.js";
import { InFlight } from "./in-flight.js";
import { Inbox } from "./inbox.js";
import { Mailbox } from "./mailbox.js";
import { expiryMs, type PayloadRef, PayloadStore } from "./payload-store.js";
import { PeerWaits } from "./peer-waits.js";
import { RedisLink } from "./redis-link.js";
import { leastInFlightBytes } from "./redis-memory.js";
import { type Published, type Sent, type Ticket, TicketDesk } from "./tickets.js";

export interface RedisExchangeOptions {
  readonly redisUrl: string;
  readonly runId: string;
  /** Bytes of unread payload that this worker may keep in Redis; less than 1 MiB counts as 1 MiB. */
  readonly maxInFlightBytes: number;
  /** Longest wait for a peer or for an answer of Redis. */
  readonly timeoutMs: number;
  /** Bytes of one Redis value. */
  readonly pieceBytes?: number;
}

/**
 * Values of 1 MiB are as fast as larger ones and hold the event loop for a millisecond each. A little less than a power of
 * two: with Redis's header it then fits jemalloc's size class of 1 MiB, the next one is 25 % larger.
 */
const defaultPieceBytes = 2 ** 20 - 4096;
/** A message travels in fragments of so many pieces: the first is read while the next is written. */
const fragmentPieces = 4;
const watchMs = 250;

/** An exchange for one generation. The caller closes it. */
export function createRedisExchange(options: RedisExchangeOptions): Exchange {
  return new RedisExchange(options);
}

/** What exists from `enter` on. */
interface Entered {
  readonly generation: number;
  readonly worker: number;
  readonly workers: number;
  readonly store: PayloadStore;
  readonly desk: TicketDesk;
  readonly inFlight: InFlight;
}

interface PublishedEntry {
  readonly step: number;
  readonly key: string;
  readonly refs: readonly PayloadRef[];
}

class RedisExchange implements Exchange {
  readonly #o: RedisExchangeOptions;
  readonly #pieceBytes: number;
  readonly #maxInFlightBytes: number;
  readonly #link: RedisLink;
  readonly #subscriber: Redis;
  readonly #inbox = new Inbox();
  readonly #waits = new PeerWaits();
  readonly #announced = new Mailbox<ReadonlyMap<string, PayloadRef>>();
  /** What was sent or published before, by name: the same again is the same. */
  readonly #outgoing = new Map<string, Promise<void>>();
  #published: readonly PublishedEntry[] = [];
  #entered: Entered | undefined;
  #renewal: NodeJS.Timeout | undefined;
  #watch: NodeJS.Timeout | undefined;
  #isChecking = false;
  #sentBytes = 0;
  #receivedBytes = 0;

  constructor(options: RedisExchangeOptions) {
    this.#o = options;
    this.#maxInFlightBytes = Math.max(options.maxInFlightBytes, leastInFlightBytes);
    const pieceBytes = options.pieceBytes ?? defaultPieceBytes;
    this.#pieceBytes = Math.min(pieceBytes, this.#maxInFlightBytes);
    this.#link = new RedisLink(options);
    this.#subscriber = this.#link.connect();
  }

  get stats(): ExchangeStats {
    return {
      sentBytes: this.#sentBytes,
      receivedBytes: this.#receivedBytes,
      inFlightBytes: this.#entered?.inFlight.bytes ?? 0,
    };
  }

  readonly waitingOn = () => this.#waits.peers();

  async enter(generation: number, worker: number, workers: number): Promise<void> {
    this.#link.throwIfClosed();
    invariant(!this.#entered, "an exchange serves one generation");
    const { runId } = this.#o;
    const store = new PayloadStore(this.#link, runId, generation, this.#pieceBytes);
    const desk = new TicketDesk(this.#link, runId, generation);
    const inFlight = new InFlight(this.#maxInFlightBytes, (refs) => store.findUnread(refs));
    const entered: Entered = { generation, worker, workers, store, desk, inFlight };
    this.#entered = entered;
    for (const old of await store.enter(worker, workers))
      await desk.remove(old.generation, old.workers);
    this.#subscriber.on("message", (_channel, name) => inFlight.acknowledged(name));
    const channel = this.#ackChannel(entered, worker);
    await this.#link.subscribe(this.#subscriber, channel, "subscribing to acknowledgements");
    desk.open(worker, (ticket) => this.#take(entered, ticket));
    this.#renewal = setInterval(() => {
      // If it fails, the payloads still have two thirds of their time, and the next step needs Redis anyway.
      store.renew(this.#published.flatMap(({ refs }) => refs)).catch(() => undefined);
    }, expiryMs / 3);
    this.#renewal.unref();
    this.#watch = setInterval(() => void this.#checkMemory(store), watchMs);
    this.#watch.unref();
  }

  /** A Redis that was restarted or flushed has lost what others wait for: better to know it at once than after their timeouts. */
  async #checkMemory(store: PayloadStore): Promise<void> {
    if (this.#isChecking) return;
    this.#isChecking = true;
    // While Redis is away nothing is known; waits have their own ends.
    const isKnown = await store.isKnown().catch(() => true);
    this.#isChecking = false;
    if (isKnown) return;
    this.#endWaits(
      new PaddockError(
        "redis-unavailable",
        "Redis has forgotten this run: it was restarted or flushed; the step in progress is exchanged again",
      ),
    );
  }

  async send(key: ExchangeKey, to: number, payload: Uint8Array): Promise<void> {
    const entered = this.#at(key);
    const name = `${nameOf(key, entered.worker)}>${to}`;
    await this.#once(name, async () => {
      const size = Math.min(fragmentPieces * this.#pieceBytes, this.#maxInFlightBytes);
      const fragments = Math.max(1, Math.ceil(payload.byteLength / size));
      await Promise.all(
        Array.from({ length: fragments }, async (_, i) => {
          const start = i * size;
          const content = { kind: "sent", bytes: payload.byteLength, start, fragments } as const;
          const fragment = payload.subarray(start, start + size);
          await this.#sendFragment(entered, { key, to, content, fragment });
        }),
      );
      this.#sentBytes += payload.byteLength;
    });
  }

  async receive(key: ExchangeKey, from: number): Promise<Uint8Array> {
    this.#at(key);
    const limit = this.#limit(key, `${key.key} from worker ${from}`);
    const take = () => this.#inbox.take(nameOf(key, from), limit);
    const payload = await this.#waits.during(from, take);
    this.#receivedBytes += payload.byteLength;
    return payload;
  }

  async allToAll(
    key: ExchangeKey,
    outgoing: readonly Uint8Array[],
    expectedBytes: readonly number[],
  ): Promise<Uint8Array[]> {
    const { worker, workers } = this.#at(key);
    // Nothing is neither sent nor waited for: both sides know the sizes.
    const sends = outgoing.map(
      (bytes, to) => to !== worker && bytes.byteLength > 0 && this.send(key, to, bytes),
    );
    const receives = fromPeers(worker, workers, async (from) =>
      expectedBytes[from] === 0 ? new Uint8Array(0) : await this.receive(key, from),
    );
    const [received] = await Promise.all([receives, ...sends]);
    return received;
  }

  async gather(key: ExchangeKey, part: string): Promise<Uint8Array[]> {
    const { worker, workers } = this.#at(key);
    return await fromPeers(worker, workers, (from) => this.fetch(key, from, part));
  }

  async publish(key: ExchangeKey, parts: ReadonlyMap<string, Uint8Array>): Promise<void> {
    const entered = this.#at(key);
    const { worker, workers, store } = entered;
    const name = nameOf(key, worker);
    await this.#once(name, async () => {
      await this.#makeRoom(key.key);
      const refs: PayloadRef[] = [];
      // Noted before they are complete: what was written of an attempt that failed is removed like the rest.
      this.#published = [...this.#published, { step: key.step, key: key.key, refs }];
      const written = await Promise.all(
        [...parts].map(async ([part, payload]) => {
          const ref = await store.write(`${name}:${part}`, payload);
          refs.push(ref);
          this.#sentBytes += payload.byteLength;
          return [part, ref.bytes, ref.crc32c] as const;
        }),
      );
      const content: Published = {
        kind: "published",
        pieceBytes: this.#pieceBytes,
        parts: written,
      };
      const peers = Array.from({ length: workers }, (_, peer) => peer).filter((p) => p !== worker);
      await Promise.all(peers.map((to) => this.#post(entered, key, to, content)));
    });
  }

  async fetch(key: ExchangeKey, from: number, part: string): Promise<Uint8Array> {
    const { store } = this.#at(key);
    const limit = this.#limit(key, `${key.key} from worker ${from}`);
    const peek = () => this.#announced.peek(nameOf(key, from), limit);
    const parts = await this.#waits.during(from, peek);
    const ref = parts.get(part);
    if (!ref) {
      throw new PaddockError(
        "exchange-corrupt",
        `${key.key} of step ${key.step} from worker ${from}: expected a part "${part}", received ${[...parts.keys()].join(", ")}; was the peer built from another commit?`,
      );
    }
    const payload = new Uint8Array(new SharedArrayBuffer(ref.bytes));
    await store.read(ref, payload);
    this.#receivedBytes += payload.byteLength;
    return payload;
  }

  async retire(step: number): Promise<void> {
    const isOld = (name: string): boolean => stepOf(name) < step;
    this.#inbox.prune(isOld);
    this.#announced.prune(isOld);
    for (const name of this.#outgoing.keys()) if (isOld(name)) this.#outgoing.delete(name);
    await this.#forget((entry) => entry.step < step);
  }

  async close(): Promise<void> {
    const generation = this.#entered?.generation ?? 0;
    const reason = new PaddockError(
      "stale-generation",
      `generation ${generation} is over for this worker: its exchange was closed`,
    );
    // What I published stays, for peers that are not done yet: the next generation removes it, or it expires.
    this.#endWaits(reason);
    await this.#entered?.desk.close();
  }

  /** Nothing can be sent or received from now on. */
  #endWaits(reason: PaddockError): void {
    clearInterval(this.#renewal);
    clearInterval(this.#watch);
    this.#link.close(reason);
    this.#inbox.close(reason);
    this.#announced.close(reason);
    this.#entered?.inFlight.close(reason);
    this.#entered?.store.close(reason);
  }

  async #sendFragment(
    entered: Entered,
    message: {
      readonly key: ExchangeKey;
      readonly to: number;
      readonly content: Omit<Sent, "payload">;
      readonly fragment: Uint8Array;
    },
  ): Promise<void> {
    const { inFlight, store, worker } = entered;
    const { key, to, content, fragment } = message;
    await inFlight.reserve(
      fragment.byteLength,
      this.#limit(key, `worker ${to} to read earlier messages, before ${key.key} could be sent`),
    );
    let payload: PayloadRef;
    try {
      payload = await store.write(`${nameOf(key, worker)}>${to}@${content.start}`, fragment);
    } catch (error) {
      inFlight.release(fragment.byteLength);
      throw error;
    }
    inFlight.sent(payload);
    try {
      await this.#post(entered, key, to, { ...content, payload });
    } catch (error) {
      // Nobody will read it.
      inFlight.acknowledged(payload.name);
      throw error;
    }
  }

  async #post(
    { desk, worker }: Entered,
    key: ExchangeKey,
    to: number,
    content: Ticket["content"],
  ): Promise<void> {
    const { generation, step } = key;
    const ticket = {
      run: this.#o.runId,
      generation,
      step,
      key: key.key,
      from: worker,
      to,
      content,
    };
    const id = `${step}-${key.key}-${worker}-${content.kind === "sent" ? content.start : "all"}`;
    await desk.post(ticket, id);
  }

  /** Takes a ticket: fetches what was sent, notes what was published. */
  async #take(entered: Entered, ticket: Ticket): Promise<void> {
    const name = nameOf(ticket, ticket.from);
    const { content } = ticket;
    if (content.kind === "published") {
      const { pieceBytes } = content;
      const refs = content.parts.map(
        ([part, bytes, crc32c]) =>
          [part, { name: `${name}:${part}`, bytes, pieceBytes, crc32c }] as const,
      );
      this.#announced.put(name, new Map(refs));
      return;
    }
    const { store } = entered;
    await this.#inbox.add(name, content, (target) => store.read(content.payload, target));
    await store.acknowledge(content.payload, this.#ackChannel(entered, ticket.from));
  }

  /** Only the newest of what I published under `key` stays: Redis never holds more than that and the one to come. */
  async #makeRoom(key: string): Promise<void> {
    const newest = this.#published.findLast((entry) => entry.key === key);
    await this.#forget((entry) => entry.key === key && entry !== newest);
  }

  async #forget(isOld: (entry: PublishedEntry) => boolean): Promise<void> {
    const old = this.#published.filter(isOld);
    this.#published = this.#published.filter((entry) => !isOld(entry));
    await this.#entered?.store.remove(old.flatMap(({ refs }) => refs));
  }

  /** Runs `work` unless it ran under `name` before; after a failure it may run again. */
  async #once(name: string, work: () => Promise<void>): Promise<void> {
    let running = this.#outgoing.get(name);
    if (!running) {
      running = work();
      this.#outgoing.set(name, running);
      running.catch(() => this.#outgoing.delete(name));
    }
    await running;
  }

  /** Checks that a key is of the generation that was entered. */
  #at({ generation, key }: ExchangeKey): Entered {
    this.#link.throwIfClosed();
    const entered = this.#entered;
    invariant(entered, "an exchange is entered before it is used");
    invariant(/^[\w/-]+(\.[\w/-]+)*$/.test(key), `"${key}" is not a key of the exchange`);
    if (generation === entered.generation) return entered;
    throw new PaddockError(
      "stale-generation",
      `${key}: expected generation ${entered.generation}, received ${generation}; the caller belongs to another assignment`,
    );
  }

  /** How long to wait for a peer, and what to say after that. */
  #limit({ step }: ExchangeKey, what: string): WaitLimit {
    const { timeoutMs } = this.#o;
    return {
      timeoutMs,
      expired: () =>
        this.#link.isDown
          ? this.#link.unavailable(`waiting for ${what}, step ${step}`)
          : new PaddockError(
              "exchange-timeout",
              `step ${step}: waited ${timeoutMs / 1000} s for ${what}; is it stopped, or much slower than this one? If steps take that long, raise exchange.timeoutSeconds`,
            ),
    };
  }

  #ackChannel({ generation }: Entered, worker: number): string {
    return `paddock:${this.#o.runId}:ack:g${generation}:w${worker}`;
  }
}

/** By worker, all at once; nothing from myself. */
function fromPeers(
  me: number,
  workers: number,
  get: (from: number) => Promise<Uint8Array>,
): Promise<Uint8Array[]> {
  const all = Array.from({ length: workers }, (_, from) => from);
  return Promise.all(all.map((from) => (from === me ? new Uint8Array(0) : get(from))));
}

/** "<generation>:<step>:<key>:<from>" */
function nameOf({ generation, step, key }: ExchangeKey, from: number): string {
  return `${generation}:${step}:${key}:${from}`;
}

function stepOf(name: string): number {
  return Number(name.split(":")[1]);
}
