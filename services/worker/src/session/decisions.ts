/** Decisions of the coordinator, waited for by step; they may come before or after somebody waits. */
import type { Decision } from "@paddock/proto";

interface Slot {
  readonly promise: Promise<Decision>;
  readonly resolve: (decision: Decision) => void;
  readonly reject: (reason: Error) => void;
}

export class Decisions {
  readonly #slots = new Map<number, Slot>();
  #failure: Error | undefined;

  /** The decision about `step`. Rejects once `fail` was called. */
  async of(step: number): Promise<Decision> {
    if (this.#failure) throw this.#failure;
    try {
      return await this.#slot(step).promise;
    } finally {
      this.#slots.delete(step);
    }
  }

  arrived(decision: Decision): void {
    this.#slot(decision.step).resolve(decision);
  }

  fail(reason: Error): void {
    this.#failure = reason;
    for (const slot of this.#slots.values()) slot.reject(reason);
  }

  #slot(step: number): Slot {
    const existing = this.#slots.get(step);
    if (existing) return existing;
    let resolve: Slot["resolve"] = () => undefined;
    let reject: Slot["reject"] = () => undefined;
    const promise = new Promise<Decision>((yes, no) => {
      resolve = yes;
      reject = no;
    });
    // A slot that nobody waits for yet must not count as an unhandled rejection.
    promise.catch(() => undefined);
    const slot = { promise, resolve, reject };
    this.#slots.set(step, slot);
    return slot;
  }
}
