/** How workers move bytes to each other: the interface, seen from a worker's main thread. Dtypes and trees are not its concern. */

export interface ExchangeKey {
  readonly generation: number;
  readonly step: number;
  /** What the bytes are: "weights", "grad.3", "sum.sinkhorn.0" ... Unique within a step. */
  readonly key: string;
}

export interface ExchangeStats {
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Bytes sent to peers and not yet read by them. */
  readonly inFlightBytes: number;
}

/**
 * Who reads what is published. "everyone": all workers, each part at the same point of their work (`gather`). "anyone":
 * besides that, any worker by itself at any time (`fetch`).
 */
export type Readers = "everyone" | "anyone";

export interface Exchange {
  /**
   * Enters a generation, once, before anything else: everything of older ones is refused from now on, wherever it would
   * take effect, and what they left behind is removed. Rejects with stale-generation when the run is beyond it.
   */
  enter(generation: number, worker: number, workers: number): Promise<void>;
  /**
   * Sends bytes to one peer. Resolves when they are accepted; waits while too many of mine are unread (back-pressure).
   * The bytes must stay unchanged until then. Idempotent by (key, from, to). The receiver holds them until `receive` or
   * `retire`: a peer is never more than a step ahead, so that is at most one step's messages.
   */
  send(key: ExchangeKey, to: number, payload: Uint8Array): Promise<void>;
  /**
   * The bytes that `from` sent to me, once; on shared memory, the caller's. Rejects with exchange-timeout,
   * exchange-corrupt, redis-unavailable, or stale-generation when the exchange is closed.
   */
  receive(key: ExchangeKey, from: number): Promise<Uint8Array>;
  /**
   * Makes named parts readable by every peer, any number of times, until retired. One ticket per peer announces all parts.
   * What was published under the same key for the step before stays readable, older ones are removed first. The bytes
   * must stay unchanged until this resolves, with "everyone" until it is retired.
   */
  publish(
    key: ExchangeKey,
    parts: ReadonlyMap<string, Uint8Array>,
    readers: Readers,
  ): Promise<void>;
  /** One part that `from` published for "anyone"; on shared memory, the caller's. Rejects like `receive`. */
  fetch(key: ExchangeKey, from: number, part: string): Promise<Uint8Array>;
  /**
   * Sends `outgoing[w]` to every worker w and returns what each sent under the same key; own entries are empty. A
   * collective: all workers call `allToAll` and `gather` for the same keys and parts in the same order, without waiting for
   * one to resolve before they call the next. Rejects like `receive`, or with worker-lost.
   * @param expectedBytes how much each worker sends here
   */
  allToAll(
    key: ExchangeKey,
    outgoing: readonly Uint8Array[],
    expectedBytes: readonly number[],
  ): Promise<Uint8Array[]>;
  /** One part that everybody published; the own entry is empty. A collective, see `allToAll`. */
  gather(key: ExchangeKey, part: string, expectedBytes: readonly number[]): Promise<Uint8Array[]>;
  /** Forgets steps before `step`: deletes what I published under them and drops what was received and never taken. */
  retire(step: number): Promise<void>;
  readonly stats: ExchangeStats;
  /** Workers whose bytes are waited for now, as far as it is known. */
  waitingOn(): readonly number[];
  /** Ends all waits (they reject with stale-generation) and connections. What I published stays readable for a while. */
  close(): Promise<void>;
}
