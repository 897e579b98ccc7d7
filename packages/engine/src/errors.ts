/** The engine's failures. It imports no other package of Paddock: callers map `code` to their own errors. */

/**
 * `engine-unavailable`: this machine cannot run the engine asked for; the message says why and what to do.
 * `engine-op`: an op was given what it cannot compute; the message names op, shapes and dtypes.
 * `out-of-memory`: libtorch could not get memory.
 */
export type EngineErrorCode = "engine-unavailable" | "engine-op" | "out-of-memory";

export class EngineError extends Error {
  readonly code: EngineErrorCode;

  constructor(message: string, options: ErrorOptions & { readonly code: EngineErrorCode }) {
    super(message, options);
    this.name = "EngineError";
    this.code = options.code;
  }
}
