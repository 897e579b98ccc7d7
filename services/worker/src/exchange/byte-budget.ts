/** A number of bytes that several may hold at once, handed out first come, first served. */
import type { PaddockError } from "@paddock/contract";

interface Asker {
  readonly bytes: number;
  readonly resolve: () => void;
  readonly reject: (reason: Error) => void;
  readonly timer: NodeJS.Timeout | undefined;
}

export interface WaitLimit {
  readonly timeoutMs: number;
  readonly expired: () => PaddockError;
}

export class ByteBudget {
  readonly #limitBytes: number;
  readonly #askers: Asker[] = [];
  #usedBytes = 0;
  #closed: PaddockError | undefined;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Resolves when `bytes` fit; more than the whole budget fits when nothing else is held. Give them back with `give`. */
  async take(bytes: number, limit?: WaitLimit): Promise<void> {
    if (this.#closed) throw this.#closed;
    if (this.#askers.length === 0 && this.#fits(bytes)) {
      this.#usedBytes += bytes;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const timer = limit && setTimeout(() => this.#expire(asker, limit), limit.timeoutMs);
      const asker: Asker = { bytes, resolve, reject, timer };
      this.#askers.push(asker);
    });
  }

  give(bytes: number): void {
    this.#usedBytes -= bytes;
    this.#serve();
  }

  /** Rejects everybody who waits, now and later. */
  close(reason: PaddockError): void {
    this.#closed ??= reason;
    for (const { timer, reject } of this.#askers.splice(0)) {
      clearTimeout(timer);
      reject(this.#closed);
    }
  }

  #fits(bytes: number): boolean {
    return this.#usedBytes === 0 || this.#usedBytes + bytes <= this.#limitBytes;
  }

  #serve(): void {
    for (
      let next = this.#askers[0];
      next !== undefined && this.#fits(next.bytes);
      next = this.#askers[0]
    ) {
      this.#askers.shift();
      clearTimeout(next.timer);
      this.#usedBytes += next.bytes;
      next.resolve();
    }
  }

  #expire(asker: Asker, { expired }: WaitLimit): void {
    this.#askers.splice(this.#askers.indexOf(asker), 1);
    asker.reject(expired());
    // A smaller one behind may fit.
    this.#serve();
  }
}
