/** Why a server could not listen, as one clear error. */
import { PaddockError } from "@paddock/contract";

/** "host:port" as gRPC and URLs take it; IPv6 hosts in brackets. */
export function formatAddress(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** `port-in-use`, or `invalid-argument` for an address that this machine does not have. */
export function listenError(host: string, port: number, cause: Error): PaddockError {
  const address = formatAddress(host, port);
  if (cause.message.includes("EADDRINUSE")) {
    return new PaddockError(
      "port-in-use",
      `expected ${address} to be free, but another process listens there; end it, or choose another port (0 takes any free one)`,
      { cause },
    );
  }
  return new PaddockError(
    "invalid-argument",
    `expected an address of this machine that we may listen on, received ${address} (${cause.message}); try 127.0.0.1, or 0.0.0.0 for all interfaces`,
    { cause },
  );
}
