/** Waiting with an end: every await that leaves the process goes through an AbortSignal and a deadline. */
import { type ErrorCode, PaddockError } from "@paddock/contract";

export interface Deadline {
  /** Milliseconds from now. */
  readonly timeoutMs: number;
  /** What is waited for, for the message: "the manifest of step 12". */
  readonly what: string;
  /** Code of the error when time is up. */
  readonly code: ErrorCode;
  /** Ends the wait early. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * The result of `work`, or an error with `deadline.code` when time is up; an abort of `deadline.signal` rejects with its
 * reason. `work` receives a signal that fires in both cases and must then release what it holds: it is not awaited.
 */
export async function withDeadline<T>(
  deadline: Deadline,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { timeoutMs, what, code, signal } = deadline;
  const timeout = new AbortController();
  const ended = signal ? AbortSignal.any([timeout.signal, signal]) : timeout.signal;
  const timer = setTimeout(() => {
    timeout.abort(
      new PaddockError(code, `waited ${timeoutMs} ms for ${what}; expected it within that time`),
    );
  }, timeoutMs);
  try {
    return await abortable(ended, () => work(ended));
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves after `ms` milliseconds; rejects with the signal's reason when it fires first. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const elapsed = () =>
    new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    });
  try {
    await (signal ? abortable(signal, elapsed) : elapsed());
  } finally {
    clearTimeout(timer);
  }
}

/** The result of `work`, or the signal's reason as rejection, whichever comes first. */
async function abortable<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  signal.throwIfAborted();
  let stop = (): void => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([work(), aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
