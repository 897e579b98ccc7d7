/** Raw binary values in Redis, in pieces, fenced by generation: what a ticket refers to. */

import { crc32c } from "@node-rs/crc32";
import { PaddockError } from "@paddock/contract";
import { failpoint } from "@paddock/service-kit/failpoints";
import type { Redis } from "ioredis";
import { ByteBudget } from "./byte-budget.js";
import { GenerationFence, type OldGeneration } from "./generation-fence.js";
import type { RedisLink } from "./redis-link.js";

/** Payloads whose owner died disappear by themselves after so long; `renew` keeps those of the living. */
export const expiryMs = 10 * 60_000;

/** Pieces on their way in one direction: enough to keep Redis busy; more only fill its buffers and hold the event loop. */
const windowPieces = 2;

/** What a ticket says about a payload. */
export interface PayloadRef {
  readonly name: string;
  readonly bytes: number;
  /** Bytes of every piece but the last. */
  readonly pieceBytes: number;
  /** CRC-32C of all bytes. */
  readonly crc32c: number;
}

export class PayloadStore {
  readonly #link: RedisLink;
  readonly #prefix: string;
  readonly #pieceBytes: number;
  readonly #fence: GenerationFence;
  /** Connections of their own for either direction: neither waits behind the other's megabytes. */
  readonly #writing: Redis;
  readonly #reading: Redis;
  readonly #writeWindow: ByteBudget;
  readonly #readWindow: ByteBudget;

  constructor(link: RedisLink, runId: string, generation: number, pieceBytes: number) {
    this.#link = link;
    this.#prefix = `paddock:${runId}`;
    this.#pieceBytes = pieceBytes;
    this.#fence = new GenerationFence(link, this.#prefix, generation);
    this.#writing = link.connect();
    this.#reading = link.connect();
    this.#writeWindow = new ByteBudget(windowPieces * pieceBytes);
    this.#readWindow = new ByteBudget(windowPieces * pieceBytes);
  }

  /** Raises the run's generation, deletes the payloads of older ones, and returns those. Rejects with `stale-generation`. */
  async enter(worker: number, workers: number): Promise<OldGeneration[]> {
    await this.#fence.enter(this.#writing, worker, workers, expiryMs);
    const old = await this.#fence.sweep(this.#writing);
    await failpoint("exchange.entered");
    return old;
  }

  /** Whether what was written since `enter` can still be there. */
  isKnown(): Promise<boolean> {
    return this.#fence.isKnown(this.#reading, expiryMs);
  }

  /** Writes under `name`; the bytes must stay unchanged until this resolves. Rejects with `stale-generation`. */
  async write(name: string, payload: Uint8Array): Promise<PayloadRef> {
    const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    const ref = { name, bytes: bytes.length, pieceBytes: this.#pieceBytes };
    const what = `writing ${name}`;
    const keys = this.#keysOf(ref);
    const writes: Promise<unknown>[] = [];
    let crc = 0;
    for (const [i, key] of keys.entries()) {
      const piece = bytes.subarray(i * ref.pieceBytes, (i + 1) * ref.pieceBytes);
      await this.#writeWindow.take(piece.length);
      crc = crc32c(piece, crc);
      const write = this.#link.answer(what, this.#writing.set(key, piece, "PX", expiryMs));
      writes.push(quiet(write.finally(() => this.#writeWindow.give(piece.length))));
    }
    writes.push(this.#fence.admit(this.#writing, what, keys, expiryMs));
    await Promise.all(writes);
    await failpoint("exchange.payload.written");
    return { ...ref, crc32c: crc };
  }

  /** Copies the payload into `target` (of its size) and verifies it: `exchange-corrupt` if it is not what was written. */
  async read(ref: PayloadRef, target: Uint8Array): Promise<void> {
    const what = `reading ${ref.name}`;
    const replies = this.#keysOf(ref).map((key) => quiet(this.#readPiece(what, key, ref)));
    let at = 0;
    let crc = 0;
    for (const reply of replies) {
      const piece = await reply;
      if (piece === null) throw gone(ref, at);
      await failpoint("exchange.payload.read", { bytes: piece });
      if (at + piece.length > target.byteLength) break;
      target.set(piece, at);
      crc = crc32c(piece, crc);
      at += piece.length;
    }
    if (at !== ref.bytes || crc !== ref.crc32c) throw damaged(ref, at, crc);
  }

  /** Deletes a payload that was sent to me and tells its sender on `channel`. */
  async acknowledge(ref: PayloadRef, channel: string): Promise<void> {
    const keys = this.#keysOf(ref);
    await failpoint("exchange.payload.acknowledging");
    await this.#link.answer(
      `acknowledging ${ref.name}`,
      this.#reading
        .pipeline()
        .unlink(...keys)
        .srem(this.#fence.liveKey, ...keys)
        .publish(channel, ref.name)
        .exec(),
    );
  }

  async remove(refs: readonly PayloadRef[]): Promise<void> {
    const keys = refs.flatMap((ref) => this.#keysOf(ref));
    if (keys.length === 0) return;
    await this.#link.answer(
      "removing payloads",
      this.#writing
        .pipeline()
        .unlink(...keys)
        .srem(this.#fence.liveKey, ...keys)
        .exec(),
    );
  }

  /** Starts the expiry of these payloads anew. */
  async renew(refs: readonly PayloadRef[]): Promise<void> {
    const pipeline = this.#writing.pipeline().pexpire(this.#fence.liveKey, expiryMs);
    for (const ref of refs) for (const key of this.#keysOf(ref)) pipeline.pexpire(key, expiryMs);
    await this.#link.answer("renewing payloads", pipeline.exec());
  }

  /** Names of those payloads that are still in Redis. */
  async findUnread(refs: readonly PayloadRef[]): Promise<ReadonlySet<string>> {
    const found = await Promise.all(
      refs.map((ref) =>
        this.#link.answer(`looking for ${ref.name}`, this.#writing.exists(this.#keyOf(ref, 0))),
      ),
    );
    return new Set(refs.filter((_, i) => found[i] === 1).map((ref) => ref.name));
  }

  close(reason: PaddockError): void {
    this.#writeWindow.close(reason);
    this.#readWindow.close(reason);
  }

  async #readPiece(what: string, key: string, { pieceBytes }: PayloadRef): Promise<Buffer | null> {
    await this.#readWindow.take(pieceBytes);
    try {
      return await this.#link.answer(what, this.#reading.getBuffer(key));
    } finally {
      this.#readWindow.give(pieceBytes);
    }
  }

  /** At least one: an empty payload is an empty value. */
  #keysOf(ref: Pick<PayloadRef, "name" | "bytes" | "pieceBytes">): string[] {
    const pieces = Math.max(1, Math.ceil(ref.bytes / ref.pieceBytes));
    return Array.from({ length: pieces }, (_, i) => this.#keyOf(ref, i));
  }

  #keyOf(ref: Pick<PayloadRef, "name">, piece: number): string {
    return `${this.#prefix}:payload:${ref.name}:${piece}`;
  }
}

/** Its rejection is reported where it is awaited, which may be after it happened. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

function gone(ref: PayloadRef, at: number): PaddockError {
  return new PaddockError(
    "exchange-corrupt",
    `${ref.name}: expected ${ref.bytes} bytes in Redis, those from ${at} on are gone; was Redis restarted, flushed, or does it evict keys (maxmemory-policy must be noeviction)?`,
  );
}

function damaged(ref: PayloadRef, bytes: number, crc: number): PaddockError {
  return new PaddockError(
    "exchange-corrupt",
    `${ref.name}: expected ${ref.bytes} bytes with crc32c ${hex(ref.crc32c)}, received ${bytes} with ${hex(crc)}; the step is void, it is computed again from the last checkpoint`,
  );
}

function hex(crc: number): string {
  return crc.toString(16).padStart(8, "0");
}
