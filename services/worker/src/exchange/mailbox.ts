/** Values that are waited for by name and may come before or after somebody waits. Every wait has a deadline. */
import type { PaddockError } from "@paddock/contract";
import type { WaitLimit } from "./byte-budget.js";

type Outcome<T> = { readonly value: T } | { readonly error: PaddockError };

interface Waiter<T> {
  readonly settle: (outcome: Outcome<T>) => void;
  readonly timer: NodeJS.Timeout;
}

export class Mailbox<T> {
  readonly #outcomes = new Map<string, Outcome<T>>();
  readonly #waiters = new Map<string, Set<Waiter<T>>>();
  #closed: PaddockError | undefined;

  /** Puts a value; a second one under the same name is ignored. */
  put(name: string, value: T): void {
    this.#settle(name, { value });
  }

  /** Puts a failure: whoever waits for `name`, now or later, is rejected with it. */
  fail(name: string, error: PaddockError): void {
    this.#settle(name, { error });
  }

  /** The value under `name`, which stays. */
  async peek(name: string, { timeoutMs, expired }: WaitLimit): Promise<T> {
    if (this.#closed) throw this.#closed;
    const outcome =
      this.#outcomes.get(name) ??
      (await new Promise<Outcome<T>>((resolve) => {
        const waiters = this.#waiters.get(name) ?? new Set();
        this.#waiters.set(name, waiters);
        const timer = setTimeout(() => {
          waiters.delete(waiter);
          if (waiters.size === 0) this.#waiters.delete(name);
          resolve({ error: expired() });
        }, timeoutMs);
        const waiter = { settle: resolve, timer };
        waiters.add(waiter);
      }));
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  }

  /** The value under `name`, which is gone afterwards. */
  async take(name: string, limit: WaitLimit): Promise<T> {
    const value = await this.peek(name, limit);
    this.#outcomes.delete(name);
    return value;
  }

  /** Forgets what came under names that fulfil `isOld`. */
  prune(isOld: (name: string) => boolean): void {
    for (const name of this.#outcomes.keys()) if (isOld(name)) this.#outcomes.delete(name);
  }

  /** Rejects everybody who waits, now and later. */
  close(reason: PaddockError): void {
    this.#closed ??= reason;
    for (const name of [...this.#waiters.keys()]) this.#wake(name, { error: this.#closed });
    this.#outcomes.clear();
  }

  #settle(name: string, outcome: Outcome<T>): void {
    if (this.#closed || this.#outcomes.has(name)) return;
    this.#outcomes.set(name, outcome);
    this.#wake(name, outcome);
  }

  #wake(name: string, outcome: Outcome<T>): void {
    const waiters = this.#waiters.get(name);
    this.#waiters.delete(name);
    for (const { timer, settle } of waiters ?? []) {
      clearTimeout(timer);
      settle(outcome);
    }
  }
}
