/**
 * Raw binary values in Redis, in pieces, fenced by generation: what a ticket refers to.
 *
 * Every write compares the run's generation in Redis first, in the same script: a worker that slept through a membership
 * change cannot put anything where somebody would read it.
 */
import { crc32c } from "@node-rs/crc32";
import { PaddockError } from "@paddock/contract";
import type { Redis } from "ioredis";

/** Redis and ioredis are fastest with values of 1 to 4 MiB. */
const pieceBytes = 2 * 2 ** 20;
/** Payloads that nobody reads (their reader died) disappear by themselves. */
const expiryMs = 10 * 60_000;

/** KEYS: generation, payload keys. ARGV: my generation, expiry, payloads. 1: written, 0: my generation is over. */
const writeScript = `
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current > tonumber(ARGV[1]) then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[2]) end
return 1`;

/** KEYS: generation. ARGV: generation to enter. Returns the run's generation after that. */
const enterScript = `
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
local mine = tonumber(ARGV[1])
if mine > current then redis.call('SET', KEYS[1], ARGV[1]) return mine end
return current`;

/** What a ticket says about a payload. */
export interface PayloadRef {
  readonly name: string;
  readonly bytes: number;
  readonly pieces: number;
  /** CRC-32C of all bytes. */
  readonly crc32c: number;
}

export class PayloadStore {
  readonly #redis: Redis;
  readonly #prefix: string;

  constructor(redis: Redis, runId: string) {
    this.#redis = redis;
    this.#prefix = `paddock:${runId}`;
  }

  /** Raises the run's generation in Redis; `stale-generation` if it is already beyond. */
  async enter(generation: number): Promise<void> {
    const key = `${this.#prefix}:generation`;
    const current = Number(await this.#redis.eval(enterScript, 1, key, String(generation)));
    if (current > generation) throw stale(generation, current);
  }

  async write(generation: number, name: string, payload: Uint8Array): Promise<PayloadRef> {
    const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    const pieces = Math.max(1, Math.ceil(bytes.length / pieceBytes));
    for (let i = 0; i < pieces; i++) {
      const piece = bytes.subarray(i * pieceBytes, (i + 1) * pieceBytes);
      const keys = [`${this.#prefix}:generation`, this.#key(name, i)];
      const written = await this.#redis.eval(writeScript, 2, ...keys, generation, expiryMs, piece);
      if (written !== 1) throw stale(generation);
    }
    return { name, bytes: bytes.length, pieces, crc32c: crc32c(bytes) };
  }

  /** The payload, verified. @param remove also deletes it: it is read once */
  async read(ref: PayloadRef, remove: boolean): Promise<Uint8Array> {
    const pieces = await Promise.all(
      Array.from({ length: ref.pieces }, (_, i) => {
        const key = this.#key(ref.name, i);
        return remove ? this.#redis.getdelBuffer(key) : this.#redis.getBuffer(key);
      }),
    );
    const missing = pieces.indexOf(null);
    if (missing >= 0) {
      throw new PaddockError(
        "exchange-corrupt",
        `${ref.name}: expected ${ref.pieces} piece(s) in Redis, piece ${missing} is gone; was Redis restarted, flushed, or short of memory?`,
      );
    }
    const bytes = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces as Buffer[]);
    const actual = crc32c(bytes);
    if (bytes.length !== ref.bytes || actual !== ref.crc32c) {
      throw new PaddockError(
        "exchange-corrupt",
        `${ref.name}: expected ${ref.bytes} bytes with crc32c ${ref.crc32c}, received ${bytes.length} with ${actual}`,
      );
    }
    return bytes;
  }

  async remove(refs: readonly PayloadRef[]): Promise<void> {
    const keys = refs.flatMap((ref) =>
      Array.from({ length: ref.pieces }, (_, i) => this.#key(ref.name, i)),
    );
    if (keys.length > 0) await this.#redis.unlink(...keys);
  }

  /** How many of these payloads are still unread. */
  async unread(refs: readonly PayloadRef[]): Promise<Set<string>> {
    const found = await Promise.all(
      refs.map((ref) => this.#redis.exists(this.#key(ref.name, ref.pieces - 1))),
    );
    return new Set(refs.filter((_, i) => found[i] === 1).map((ref) => ref.name));
  }

  #key(name: string, piece: number): string {
    return `${this.#prefix}:payload:${name}:${piece}`;
  }
}

function stale(mine: number, current?: number): PaddockError {
  const beyond = current === undefined ? "a later one" : `generation ${current}`;
  return new PaddockError(
    "stale-generation",
    `Redis refused generation ${mine}: the run has entered ${beyond}`,
  );
}
