/** Failures of collectives. Like the engine's other errors they know no other package: callers map `code`. */

/**
 * `worker-lost`: a peer's connection broke.
 * `exchange-timeout`: a peer did not come within the deadline.
 * `exchange-corrupt`: peers disagree about what is exchanged, in which order or how large.
 * `stale-generation`: the group was closed here.
 * `engine-unavailable`: this machine lacks the library.
 */
export type CollectiveErrorCode =
  | "worker-lost"
  | "exchange-timeout"
  | "exchange-corrupt"
  | "stale-generation"
  | "engine-unavailable";

export class CollectiveError extends Error {
  readonly code: CollectiveErrorCode;

  constructor(message: string, options: ErrorOptions & { readonly code: CollectiveErrorCode }) {
    super(message, options);
    this.name = "CollectiveError";
    this.code = options.code;
  }
}
