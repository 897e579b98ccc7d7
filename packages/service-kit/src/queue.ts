/** A bounded queue between someone who pushes and one who iterates: how events become a stream of messages. */
import { invariant, PaddockError } from "@paddock/contract";

export interface MessageQueue<T> extends AsyncIterable<T> {
  /** Values pushed and not yet taken. */
  readonly length: number;
  /** Appends. False when the queue has ended; throws when it is full, so that a reader that stopped cannot eat the memory. */
  push(value: T): boolean;
  /** Ends the iteration after the values that are queued. */
  end(): void;
}

/** An empty queue for one iteration. @param limit most values kept */
export function createQueue<T>(limit: number): MessageQueue<T> {
  const values: T[] = [];
  let ended = false;
  let iterated = false;
  let wake: (() => void) | undefined;
  const notify = (): void => {
    wake?.();
    wake = undefined;
  };
  return {
    get length() {
      return values.length;
    },
    push(value) {
      if (ended) return false;
      if (values.length >= limit) {
        throw new PaddockError(
          "internal",
          `expected at most ${limit} messages waiting for their reader; it does not keep up`,
        );
      }
      values.push(value);
      notify();
      return true;
    },
    end() {
      ended = true;
      notify();
    },
    async *[Symbol.asyncIterator]() {
      invariant(!iterated, "a queue has one reader");
      iterated = true;
      try {
        while (values.length > 0 || !ended) {
          if (values.length > 0) yield values.shift() as T;
          else {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
        }
      } finally {
        ended = true;
        values.length = 0;
      }
    },
  };
}
