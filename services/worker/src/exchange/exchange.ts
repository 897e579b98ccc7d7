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

export interface Exchange {
  /** Enters a generation: everything of older ones is refused from now on, wherever it would take effect. */
  enter(generation: number, worker: number, workers: number): Promise<void>;
  /**
   * Sends bytes to one peer. Resolves when they are accepted; waits while too many of mine are unread (back-pressure).
   * The bytes must stay unchanged until then. Idempotent by (key, from, to).
   */
  send(key: ExchangeKey, to: number, payload: Uint8Array): Promise<void>;
  /** The bytes that `from` sent to me, once. Rejects with exchange-timeout, exchange-corrupt, redis-unavailable or stale-generation. */
  receive(key: ExchangeKey, from: number): Promise<Uint8Array>;
  /** Makes named parts readable by every peer, any number of times, until retired. One ticket per peer announces all parts. */
  publish(key: ExchangeKey, parts: ReadonlyMap<string, Uint8Array>): Promise<void>;
  /** One part that `from` published. Rejects like `receive`. */
  fetch(key: ExchangeKey, from: number, part: string): Promise<Uint8Array>;
  /** Deletes what I published under steps before `step`. */
  retire(step: number): Promise<void>;
  readonly stats: ExchangeStats;
  /** Ends all waits and connections. */
  close(): Promise<void>;
}
