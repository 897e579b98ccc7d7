/** Tells listeners that something changed, at most every so often. */

export interface Changes {
  /** Something changed: listeners hear of it within `intervalMs`. */
  announce(): void;
  /** Resolves at the next announcement, or when the signal fires. */
  next(signal: AbortSignal): Promise<void>;
  /** Tells of what changed at once. */
  flush(): void;
}

export function createChanges(intervalMs: number, listener: () => void): Changes {
  const waiting = new Set<() => void>();
  let timer: NodeJS.Timeout | undefined;
  const tell = (): void => {
    timer = undefined;
    listener();
    const wakes = [...waiting];
    waiting.clear();
    for (const wake of wakes) wake();
  };
  return {
    announce() {
      timer ??= setTimeout(tell, intervalMs);
    },
    next: (signal) =>
      new Promise((resolve) => {
        const wake = (): void => {
          waiting.delete(wake);
          signal.removeEventListener("abort", wake);
          resolve();
        };
        waiting.add(wake);
        signal.addEventListener("abort", wake, { once: true });
      }),
    flush() {
      clearTimeout(timer);
      tell();
    },
  };
}
