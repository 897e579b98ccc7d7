/** Values that are waited for by name and may come before or after somebody waits. Every wait has a deadline. */
import type { PaddockError } from "@paddock/contract";

interface Waiter<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (reason: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class Mailbox<T> {
  readonly #values = new Map<string, T>();
  readonly #failures = new Map<string, PaddockError>();
  readonly #waiters = new Map<string, Set<Waiter<T>>>();
  #closed: PaddockError | undefined;

  /** Puts a value; a second one under the same name is ignored (a ticket that was delivered twice). */
  put(name: string, value: T): void {
    if (this.#closed || this.#values.has(name)) return;
    this.#values.set(name, value);
    for (const waiter of this.#takeWaiters(name)) waiter.resolve(value);
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** The value under `name`, which stays. Rejects with `expired()` after `timeoutMs`. */
  async peek(name: string, timeoutMs: number, expired: () => PaddockError): Promise<T> {
    if (this.#closed) throw this.#closed;
    const value = this.#values.get(name);
    if (value !== undefined) return value;
    const failure = this.#failures.get(name);
    if (failure) throw failure;
    return await new Promise<T>((resolve, reject) => {
      const waiters = this.#waiters.get(name) ?? new Set();
      this.#waiters.set(name, waiters);
      const timer = setTimeout(() => {
        waiters.delete(waiter);
        reject(expired());
      }, timeoutMs);
      const waiter = { resolve, reject, timer };
      waiters.add(waiter);
    });
  }

  /** Rejects those who wait for `name`, now or later. */
  fail(name: string, reason: PaddockError): void {
    this.#failures.set(name, reason);
    for (const waiter of this.#takeWaiters(name)) waiter.reject(reason);
  }

  delete(name: string): void {
    this.#values.delete(name);
  }

  /** Forgets the values whose names fulfil `isOld`. */
  prune(isOld: (name: string) => boolean): void {
    for (const map of [this.#values, this.#failures]) {
      for (const name of map.keys()) if (isOld(name)) map.delete(name);
    }
  }

  close(reason: PaddockError): void {
    this.#closed = reason;
    for (const name of [...this.#waiters.keys()]) this.fail(name, reason);
    this.#values.clear();
  }

  #takeWaiters(name: string): Iterable<Waiter<T>> {
    const waiters = this.#waiters.get(name) ?? new Set();
    this.#waiters.delete(name);
    for (const { timer } of waiters) clearTimeout(timer);
    return waiters;
  }
}
