/** The closed set of failures, and what a caller does about each. One class, one table. */

/** What the caller of a failed operation does next. */
export type Retry = "never" | "same-worker" | "replan";

interface CodeRow {
  readonly retry: Retry;
  /** gRPC status name, see https://grpc.io/docs/guides/status-codes/ */
  readonly grpc: string;
  /** Process exit code: 2 wrong use or spec, 3 environment, 4 run failed. */
  readonly exit: 2 | 3 | 4;
}

const table = {
  "invalid-spec": { retry: "never", grpc: "INVALID_ARGUMENT", exit: 2 },
  "invalid-argument": { retry: "never", grpc: "INVALID_ARGUMENT", exit: 2 },
  "not-found": { retry: "never", grpc: "NOT_FOUND", exit: 2 },
  "already-exists": { retry: "never", grpc: "ALREADY_EXISTS", exit: 2 },
  /** Who calls cannot be known: no certificate, an expired or foreign one, no valid join token. */
  unauthenticated: { retry: "never", grpc: "UNAUTHENTICATED", exit: 3 },
  /** Who calls is known, and may not do this. */
  "permission-denied": { retry: "never", grpc: "PERMISSION_DENIED", exit: 3 },
  "version-mismatch": { retry: "never", grpc: "FAILED_PRECONDITION", exit: 3 },
  "stale-generation": { retry: "replan", grpc: "ABORTED", exit: 4 },
  "lease-lost": { retry: "replan", grpc: "ABORTED", exit: 4 },
  "worker-lost": { retry: "replan", grpc: "UNAVAILABLE", exit: 4 },
  "exchange-timeout": { retry: "replan", grpc: "DEADLINE_EXCEEDED", exit: 4 },
  "exchange-corrupt": { retry: "replan", grpc: "DATA_LOSS", exit: 4 },
  "checkpoint-corrupt": { retry: "never", grpc: "DATA_LOSS", exit: 4 },
  "ledger-corrupt": { retry: "never", grpc: "DATA_LOSS", exit: 4 },
  "data-unavailable": { retry: "never", grpc: "FAILED_PRECONDITION", exit: 3 },
  "redis-unavailable": { retry: "replan", grpc: "UNAVAILABLE", exit: 3 },
  "engine-unavailable": { retry: "never", grpc: "FAILED_PRECONDITION", exit: 3 },
  "port-in-use": { retry: "never", grpc: "FAILED_PRECONDITION", exit: 3 },
  "disk-unavailable": { retry: "never", grpc: "RESOURCE_EXHAUSTED", exit: 3 },
  "out-of-memory": { retry: "never", grpc: "RESOURCE_EXHAUSTED", exit: 4 },
  "non-finite": { retry: "never", grpc: "ABORTED", exit: 4 },
  /** The run was told to stop on signs of collapse (spec.monitor.onCollapse). */
  collapsed: { retry: "never", grpc: "ABORTED", exit: 4 },
  /** The run was told to stop on a spike of its loss (spec.guards.spike). */
  "loss-spike": { retry: "never", grpc: "ABORTED", exit: 4 },
  "run-failed": { retry: "never", grpc: "INTERNAL", exit: 4 },
  internal: { retry: "never", grpc: "INTERNAL", exit: 4 },
} as const satisfies Record<string, CodeRow>;

export type ErrorCode = keyof typeof table;

/**
 * The only error class Paddock throws on purpose. The message says expected, received and the remedy.
 * A bug of ours is thrown by `invariant` and carries the code `internal`.
 */
export class PaddockError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "PaddockError";
    this.code = code;
  }

  get retry(): Retry {
    return table[this.code].retry;
  }

  get grpcStatus(): string {
    return table[this.code].grpc;
  }

  get exitCode(): 2 | 3 | 4 {
    return table[this.code].exit;
  }

  /** Wraps anything that was thrown; a PaddockError passes through unchanged. */
  static from(thrown: unknown, code: ErrorCode = "internal"): PaddockError {
    if (thrown instanceof PaddockError) return thrown;
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return new PaddockError(code, message, { cause: thrown });
  }
}

export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(table, code);
}

/** Asserts something that only a bug of ours can break. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new PaddockError("internal", `invariant broken: ${message}`);
}
