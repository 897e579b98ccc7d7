/**
 * The run's generation as Redis knows it: what is older is refused, and what it left behind is deleted.
 *
 * Payload keys and queues carry their generation in their names, so nothing of an old generation can be taken for
 * something of a newer one. The check at Redis tells a worker that slept through a membership change that it is late.
 */
import { PaddockError } from "@paddock/contract";
import type { Redis } from "ioredis";
import type { RedisLink } from "./redis-link.js";

/**
 * KEYS: generation, members of generations, my presence. ARGV: generation to enter, its number of workers, expiry in ms. Returns the
 * run's generation after that: a larger one than mine means that I am late and changed nothing.
 */
const enterScript = `
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current > tonumber(ARGV[1]) then return current end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('SET', KEYS[3], '', 'PX', ARGV[3])
return tonumber(ARGV[1])`;

/**
 * KEYS: generation, live keys, payload keys just written. ARGV: my generation, expiry in ms. Notes the keys as live and
 * returns 0; or deletes them and returns the run's generation if that is beyond mine. The values themselves do not pass
 * through Lua: it would copy each twice and leave megabytes to its garbage collector.
 */
const admitScript = `
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current > tonumber(ARGV[1]) then
  redis.call('UNLINK', unpack(KEYS, 3))
  return current
end
redis.call('SADD', KEYS[2], unpack(KEYS, 3))
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 0`;

/** Lua's unpack is limited to some 8,000 values. */
const maxKeysPerCall = 4000;

export interface OldGeneration {
  readonly generation: number;
  readonly workers: number;
}

export class GenerationFence {
  readonly generation: number;
  /** The set of payload keys of this generation that are in Redis. */
  readonly liveKey: string;
  readonly #link: RedisLink;
  readonly #prefix: string;
  #presenceKey = "";

  constructor(link: RedisLink, prefix: string, generation: number) {
    this.#link = link;
    this.#prefix = prefix;
    this.generation = generation;
    this.liveKey = liveKeyOf(prefix, generation);
  }

  /** Raises the run's generation in Redis to mine; `stale-generation` if it is already beyond. */
  async enter(redis: Redis, worker: number, workers: number, expiryMs: number): Promise<void> {
    this.#presenceKey = `${this.#prefix}:present:${this.generation}:${worker}`;
    const keys = [this.#generationKey, this.#membersKey, this.#presenceKey];
    const current = await this.#link.answer(
      `entering generation ${this.generation}`,
      redis.eval(enterScript, 3, ...keys, this.generation, workers, expiryMs),
    );
    if (current !== this.generation) throw this.#stale(current);
  }

  /** Whether Redis still knows what it was told by this worker: it was not restarted or flushed since `enter`. */
  async isKnown(redis: Redis, expiryMs: number): Promise<boolean> {
    const what = "asking Redis whether it has forgotten the run";
    return (await this.#link.answer(what, redis.pexpire(this.#presenceKey, expiryMs))) === 1;
  }

  /** Admits values that were written on the same connection just before; `stale-generation` if my generation is over. */
  async admit(redis: Redis, what: string, keys: readonly string[], expiryMs: number) {
    const calls: Promise<void>[] = [];
    for (let i = 0; i < keys.length; i += maxKeysPerCall) {
      const some = keys.slice(i, i + maxKeysPerCall);
      const args = [this.#generationKey, this.liveKey, ...some, this.generation, expiryMs];
      const call = this.#link.answer(what, redis.eval(admitScript, some.length + 2, ...args));
      calls.push(
        call.then((current) => {
          if (current !== 0) throw this.#stale(current);
        }),
      );
    }
    await Promise.all(calls);
  }

  /**
   * Deletes the payloads of older generations, whose workers may be dead, and returns those generations, each to one
   * caller only.
   */
  async sweep(redis: Redis): Promise<OldGeneration[]> {
    const what = "removing what older generations left in Redis";
    const members = await this.#link.answer(what, redis.hgetall(this.#membersKey));
    const swept: OldGeneration[] = [];
    for (const [field, workers] of Object.entries(members)) {
      const generation = Number(field);
      if (generation >= this.generation) continue;
      const claimed = await this.#link.answer(what, redis.hdel(this.#membersKey, field));
      if (claimed === 0) continue;
      const live = liveKeyOf(this.#prefix, generation);
      const keys = await this.#link.answer(what, redis.smembers(live));
      for (let i = 0; i < keys.length; i += maxKeysPerCall) {
        await this.#link.answer(what, redis.unlink(...keys.slice(i, i + maxKeysPerCall)));
      }
      await this.#link.answer(what, redis.unlink(live));
      swept.push({ generation, workers: Number(workers) });
    }
    return swept;
  }

  get #generationKey(): string {
    return `${this.#prefix}:generation`;
  }

  get #membersKey(): string {
    return `${this.#prefix}:generations`;
  }

  #stale(current: unknown): PaddockError {
    return new PaddockError(
      "stale-generation",
      `expected generation ${this.generation} to be the run's latest, but Redis refused it: the run has entered generation ${String(current)}; this worker was away too long and must be assigned anew`,
    );
  }
}

function liveKeyOf(prefix: string, generation: number): string {
  return `${prefix}:live:${generation}`;
}
