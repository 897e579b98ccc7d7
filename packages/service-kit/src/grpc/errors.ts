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
 * @param server.unreachable code for "nobody answers there": what that means is the caller's to know
 */
export function fromServiceError(
  error: unknown,
  server: { readonly address: string; readonly unreachable: ErrorCode },
): PaddockError {
  if (error instanceof PaddockError || !isServiceError(error)) return PaddockError.from(error);
  const [sent] = error.metadata.get(codeKey);
  const message = error.details || error.message;
  if (typeof sent === "string" && isErrorCode(sent)) {
    return new PaddockError(sent, message, { cause: error });
  }
  return new PaddockError(
    codeOf(error.code, server.unreachable),
    explained(error.code, message, server.address),
    { cause: error },
  );
}

/** What gRPC itself says, in our words where a remedy is known. */
function explained(code: status, message: string, address: string): string {
  if (code === status.UNAVAILABLE) {
    const [, reason = message] =
      /Last error: (?:Error: )?(.+?)\. Resolution note/.exec(message) ?? [];
    return `expected an answer from ${address}, received: ${reason}; is it running, and is this its address?`;
  }
  if (code === status.DEADLINE_EXCEEDED) {
    const [, waited = "its deadline"] = /after (\d+\.\d{1,3})/.exec(message) ?? [];
    return `expected an answer from ${address}, received none within ${waited} s; it is stopped, or it or this machine is overloaded`;
  }
  return `gRPC ${status[code] ?? code}: ${message}`;
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
