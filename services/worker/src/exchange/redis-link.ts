/** The connections of one exchange to one Redis, and the rule that no wait on them is without an end. */
import { PaddockError } from "@paddock/contract";
import { hideSecret, redisTarget } from "@paddock/service-kit";
import { Redis } from "ioredis";

export interface RedisLinkOptions {
  readonly redisUrl: string;
  /** Longest wait for one answer, in milliseconds. */
  readonly timeoutMs: number;
}

const slowestRetryMs = 1000;

export class RedisLink {
  readonly timeoutMs: number;
  readonly #url: string;
  readonly #connections: Redis[] = [];
  /** Rejects the waits in progress. */
  readonly #waits = new Set<(reason: PaddockError) => void>();
  #lostAtMs: number | undefined;
  #closed: PaddockError | undefined;

  constructor({ redisUrl, timeoutMs }: RedisLinkOptions) {
    this.#url = redisUrl;
    this.timeoutMs = timeoutMs;
  }

  /**
   * Another connection, closed with the link. It reconnects by itself and then sends again what was not answered, so
   * every command on it must be one that may be executed twice.
   */
  connect(): Redis {
    const { url, tls } = redisTarget(this.#url);
    const redis = new Redis(url, {
      ...tls,
      // BullMQ demands it; `answer` sets the limits.
      maxRetriesPerRequest: null,
      retryStrategy: (attempt) => Math.min(50 * attempt, slowestRetryMs),
      // As `subscribe` does it. By itself ioredis leaves the rejection to nobody when the link is closed meanwhile: that would end the process.
      autoResubscribe: false,
    });
    // A lost connection shows in the waits of those who need it.
    redis.on("error", () => undefined);
    redis.on("close", () => {
      this.#lostAtMs ??= performance.now();
    });
    redis.on("ready", () => {
      if (!this.isDown) this.#lostAtMs = undefined;
    });
    this.#connections.push(redis);
    return redis;
  }

  get isDown(): boolean {
    return this.#connections.some(({ status }) => status !== "ready");
  }

  /** Subscribes a connection of this link, and again whenever it has been lost. */
  async subscribe(redis: Redis, channel: string, what: string): Promise<void> {
    redis.on("ready", () => void redis.subscribe(channel).catch(() => undefined));
    await this.answer(what, redis.subscribe(channel));
  }

  /** What Redis replies; `redis-unavailable` when it does not within the time or refuses, or the reason of `close`. */
  async answer<T>(what: string, reply: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    let end: (reason: PaddockError) => void = () => undefined;
    const ended = new Promise<never>((_, reject) => {
      end = reject;
      this.#waits.add(end);
      timer = setTimeout(() => reject(this.unavailable(what)), this.timeoutMs);
      if (this.#closed) reject(this.#closed);
    });
    try {
      return await Promise.race([reply, ended]);
    } catch (thrown) {
      throw this.#closed ?? this.#refused(what, thrown);
    } finally {
      clearTimeout(timer);
      this.#waits.delete(end);
    }
  }

  /** "Redis does not answer", with address, duration and remedy. */
  unavailable(what: string): PaddockError {
    const lost =
      this.#lostAtMs === undefined
        ? ""
        : ` (connection lost ${Math.round((performance.now() - this.#lostAtMs) / 1000)} s ago)`;
    return new PaddockError(
      "redis-unavailable",
      `${what}: expected an answer from Redis at ${hideSecret(this.#url)} within ${this.timeoutMs / 1000} s, received none${lost}; start it again or mend the network, the run then continues from its last checkpoint`,
    );
  }

  throwIfClosed(): void {
    if (this.#closed) throw this.#closed;
  }

  /** Rejects every wait with `reason` and drops the connections. */
  close(reason: PaddockError): void {
    this.#closed ??= reason;
    for (const end of this.#waits) end(this.#closed);
    for (const redis of this.#connections) redis.disconnect();
  }

  #refused(what: string, thrown: unknown): PaddockError {
    if (thrown instanceof PaddockError) return thrown;
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    const remedy = message.startsWith("OOM")
      ? "raise its maxmemory, or lower exchange.maxInFlightBytes"
      : "is it a Redis of 6.2 or newer that is not read-only?";
    return new PaddockError(
      "redis-unavailable",
      `${what}: expected Redis at ${hideSecret(this.#url)} to obey, received "${message}"; ${remedy}`,
      { cause: thrown },
    );
  }
}
