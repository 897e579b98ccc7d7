/** PaddockErrors across gRPC: the status says it to any client, the code in the trailer brings the same error back. */
import { Metadata, type ServiceError, type StatusObject, status } from "@grpc/grpc-js";
import { type ErrorCode, isErrorCode, PaddockError } from "@paddock/contract";

const codeKey = "paddock-code";
/** gRPC messages travel in one HTTP/2 header; peers commonly refuse more than 8 KiB of headers. */
const maxMessageCharacters = 2000;

/** What a handler fails with: status, message and trailer of `thrown`; anything but a PaddockError becomes `internal`. */
export function toServiceError(
  thrown: unknown,
): Pick<StatusObject, "code" | "details" | "metadata"> {
  const error = PaddockError.from(thrown);
  const metadata = new Metadata();
  metadata.set(codeKey, error.code);
  const details =
    error.message.length > maxMessageCharacters
      ? `${error.message.slice(0, maxMessageCharacters)} [cut]`
      : error.message;
  return { code: statusOf(error), details, metadata };
}

/**
 * The PaddockError that the other side threw; else one with a code that fits the status.
 * @param unreachable code for "nobody answers there": what that means is the caller's to know
 */
export function fromServiceError(error: unknown, unreachable: ErrorCode): PaddockError {
  if (error instanceof PaddockError || !isServiceError(error)) return PaddockError.from(error);
  const [sent] = error.metadata.get(codeKey);
  const message = error.details || error.message;
  if (typeof sent === "string" && isErrorCode(sent)) {
    return new PaddockError(sent, message, { cause: error });
  }
  const name = status[error.code] ?? String(error.code);
  return new PaddockError(codeOf(error.code, unreachable), `gRPC ${name}: ${message}`, {
    cause: error,
  });
}

function codeOf(code: status, unreachable: ErrorCode): ErrorCode {
  switch (code) {
    case status.UNAVAILABLE:
    case status.DEADLINE_EXCEEDED:
    case status.CANCELLED:
      return unreachable;
    case status.UNIMPLEMENTED:
      return "version-mismatch";
    case status.INVALID_ARGUMENT:
      return "invalid-argument";
    case status.NOT_FOUND:
      return "not-found";
    case status.ALREADY_EXISTS:
      return "already-exists";
    case status.UNAUTHENTICATED:
      return "unauthenticated";
    case status.PERMISSION_DENIED:
      return "permission-denied";
    default:
      return "internal";
  }
}

function statusOf(error: PaddockError): status {
  return status[error.grpcStatus as keyof typeof status];
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "metadata" in error && error.metadata instanceof Metadata;
}
