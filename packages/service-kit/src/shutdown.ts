/** SIGINT and SIGTERM as an AbortSignal: the first asks for a clean end, the second ends at once. */

export interface Shutdown {
  /** Fires at the first SIGINT or SIGTERM; the reason is the signal's name. */
  readonly signal: AbortSignal;
  /** Gives the signals back to Node's default. */
  close(): void;
}

/**
 * Starts to listen. The caller closes it.
 * @param now called at the second signal, with the exit code 130 (128 + SIGINT); must not return to normal work
 */
export function listenForShutdown(now: (exitCode: number) => void = process.exit): Shutdown {
  const controller = new AbortController();
  const handle = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) now(130);
    else controller.abort(name);
  };
  process.on("SIGINT", handle);
  process.on("SIGTERM", handle);
  return {
    signal: controller.signal,
    close() {
      process.off("SIGINT", handle);
      process.off("SIGTERM", handle);
    },
  };
}
