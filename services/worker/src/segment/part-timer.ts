/** Splits a step's wall time into its parts; nested parts (gather inside teacher) are charged once, to the inner one. */
import type { StepPart, StepSeconds } from "@paddock/contract";

export class PartTimer {
  readonly #seconds = new Map<StepPart, number>();
  readonly #now: () => number;
  #current: StepPart | null = null;
  #since = 0;

  /** @param now milliseconds, monotone */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** From now on time belongs to `part`. Returns what it belonged to before. */
  enter(part: StepPart | null): StepPart | null {
    const now = this.#now();
    const previous = this.#current;
    if (previous) {
      this.#seconds.set(previous, (this.#seconds.get(previous) ?? 0) + (now - this.#since) / 1000);
    }
    this.#current = part;
    this.#since = now;
    return previous;
  }

  /** Charges the wait for `work` to `part`, then goes back to the part before. */
  async during<T>(part: StepPart, work: () => Promise<T>): Promise<T> {
    const previous = this.enter(part);
    try {
      return await work();
    } finally {
      this.enter(previous);
    }
  }

  /** Seconds by part so far; starts anew. */
  take(): Partial<StepSeconds> {
    this.enter(null);
    const seconds = Object.fromEntries(this.#seconds) as Partial<StepSeconds>;
    this.#seconds.clear();
    return seconds;
  }
}
