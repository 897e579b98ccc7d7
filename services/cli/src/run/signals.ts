/** SIGINT, SIGTERM and SIGHUP of a run: the first asks for a clean end, a later one ends at once. */

/**
 * Copies of one Ctrl-C: a terminal sends it to every process of the group, and npm passes it on once more. Signals within
 * this time count as one.
 */
const copiesMs = 500;
const names = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface SignalListener {
  /** Gives the signals back to Node's default. */
  close(): void;
}

/** @param onFirst asks for a clean end   @param onSecond ends at once; must not return to normal work */
export function listenForSignals(
  onFirst: (name: string) => void,
  onSecond: () => void,
): SignalListener {
  let firstMs: number | undefined;
  const handle = (name: NodeJS.Signals): void => {
    if (firstMs === undefined) {
      firstMs = performance.now();
      onFirst(name);
    } else if (performance.now() - firstMs > copiesMs) {
      onSecond();
    }
  };
  for (const name of names) process.on(name, handle);
  return {
    close: () => {
      for (const name of names) process.off(name, handle);
    },
  };
}
