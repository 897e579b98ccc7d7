/**
 * A group of processes that exchange bytes, on CPUs through Gloo's TCP transport. All collectives are one all-to-all:
 * what is summed is summed by the receiver, in an order of the caller's (reduce.ts).
 *
 * The caller carries the addresses between `listen` and `connect`. Every process asks for the same operations in the same
 * order; they run one after the other on a thread of the group, each within the deadline. The first failure breaks the
 * group: what is asked later fails in the same way, a new group is needed.
 */
import { CollectiveError, type CollectiveErrorCode } from "./errors.js";
import { type CollectivesNative, type GroupHandle, loadCollectives } from "./native.js";

export interface GroupOptions {
  /** This process among `size`. */
  readonly rank: number;
  readonly size: number;
  /** Address of this machine at which the others reach it. */
  readonly host: string;
  /** Longest wait for a peer, for each operation from its turn on, in milliseconds. */
  readonly timeoutMs: number;
  /** Longest wait for all connections, in milliseconds. */
  readonly connectMs: number;
}

export interface Group {
  readonly rank: number;
  readonly size: number;
  /** Bytes sent to peers so far. */
  readonly sentBytes: number;
  /** Opens a socket for each peer. Returns what to tell each rank; the own entry is empty. */
  listen(): Promise<readonly Uint8Array[]>;
  /** @param addresses what each rank's `listen` returned for this one */
  connect(addresses: readonly Uint8Array[]): Promise<void>;
  /**
   * Sends `outgoing[r]` to every rank r, and fills `incoming[r]` with what r sends here, whose length must be known. Copies
   * the own entry. The arrays, on shared memory or not, must rest until the promise settles.
   * @param key the same on all ranks; told in errors
   */
  allToAll(
    key: string,
    outgoing: readonly Uint8Array[],
    incoming: readonly Uint8Array[],
  ): Promise<void>;
  /** Fills `incoming[r]` with rank r's `own`, on every rank. Lengths may differ between ranks. */
  allGather(key: string, own: Uint8Array, incoming: readonly Uint8Array[]): Promise<void>;
  /**
   * Fails what is under way and all that is asked later, soon, with `stale-generation`. Never waits. What a peer has not
   * received yet may be lost to it: close in good order when all are done.
   */
  close(reason: string): void;
}

/** Why there is no Gloo here, or undefined. */
export function whyNoGroups(): string | undefined {
  const load = loadCollectives();
  return load.kind === "absent" ? load.why : undefined;
}

/** A group that is not connected yet. @throws CollectiveError `engine-unavailable`, see `whyNoGroups` */
export function openGroup(options: GroupOptions): Group {
  const load = loadCollectives();
  if (load.kind === "absent") throw new CollectiveError(load.why, { code: "engine-unavailable" });
  return new GlooGroup(load.native, options);
}

const codes: Readonly<Record<string, CollectiveErrorCode>> = {
  "peer-lost": "worker-lost",
  timeout: "exchange-timeout",
  mismatch: "exchange-corrupt",
  closed: "stale-generation",
};

class GlooGroup implements Group {
  readonly rank: number;
  readonly size: number;
  readonly #native: CollectivesNative;
  readonly #handle: GroupHandle;
  readonly #o: GroupOptions;
  #sentBytes = 0;

  constructor(native: CollectivesNative, options: GroupOptions) {
    this.rank = options.rank;
    this.size = options.size;
    this.#native = native;
    this.#o = options;
    this.#handle = native.open(options.rank, options.size, options.host);
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  async listen(): Promise<readonly Uint8Array[]> {
    return await this.#run(`listening on ${this.#o.host}`, this.#o.connectMs, (ms) =>
      this.#native.listen(this.#handle, ms),
    );
  }

  async connect(addresses: readonly Uint8Array[]): Promise<void> {
    this.#checkCount("addresses", addresses);
    await this.#run(`connecting ${this.size} ranks`, this.#o.connectMs, (ms) =>
      this.#native.connect(this.#handle, ms, addresses),
    );
  }

  async allToAll(
    key: string,
    outgoing: readonly Uint8Array[],
    incoming: readonly Uint8Array[],
  ): Promise<void> {
    this.#checkCount(`${key}: outgoing`, outgoing);
    this.#checkCount(`${key}: incoming`, incoming);
    const [mine, kept] = [outgoing[this.rank], incoming[this.rank]] as [Uint8Array, Uint8Array];
    if (mine.byteLength !== kept.byteLength) {
      throw new RangeError(
        `${key}: expected ${mine.byteLength} bytes of the own rank's, received ${kept.byteLength}`,
      );
    }
    const done = this.#run(key, this.#o.timeoutMs, (ms) =>
      this.#native.exchange(this.#handle, ms, key, outgoing, incoming),
    );
    if (mine !== kept) kept.set(mine);
    await done;
    for (const bytes of outgoing) this.#sentBytes += bytes.byteLength;
    this.#sentBytes -= mine.byteLength;
  }

  async allGather(key: string, own: Uint8Array, incoming: readonly Uint8Array[]): Promise<void> {
    await this.allToAll(
      key,
      incoming.map(() => own),
      incoming,
    );
  }

  close(reason: string): void {
    this.#native.close(this.#handle, reason);
  }

  /** Starts `work` at once: the order of calls is the order of operations. */
  async #run<T>(what: string, ms: number, work: (ms: number) => Promise<T>): Promise<T> {
    try {
      return await work(Math.ceil(ms));
    } catch (thrown) {
      const error = thrown as { readonly code?: string; readonly message: string };
      const code = codes[error.code ?? ""];
      if (code === undefined) throw thrown;
      const limit = code === "exchange-timeout" ? ` within ${ms / 1000} s` : "";
      throw new CollectiveError(`${what}: ${error.message}${limit}`, { code, cause: thrown });
    }
  }

  #checkCount(what: string, list: readonly Uint8Array[]): void {
    if (list.length === this.size) return;
    throw new RangeError(
      `${what}: expected one entry per rank of ${this.size}, got ${list.length}`,
    );
  }
}
