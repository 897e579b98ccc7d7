/** What flags and environment say about our certificate. */
import { resolve } from "node:path";
import type { TlsOptions } from "@paddock/service-kit/client";
import type { Io } from "../io.js";

/** Of every command that speaks with a coordinator. */
export interface TlsFlags {
  readonly tlsDir?: string;
}

/** The folder of certificates, absolute: --tls-dir, else PADDOCK_TLS_DIR. */
export function tlsDirOf({ tlsDir }: TlsFlags, io: Io): string | undefined {
  const named = tlsDir ?? (io.environment["PADDOCK_TLS_DIR"] || undefined);
  return named === undefined ? undefined : resolve(io.cwd, named);
}

/**
 * Our certificate as a client.
 * @param noted what a coordinator left in its run directory, if it is found by that: one without certificates wants none
 */
export function clientTls(
  flags: TlsFlags,
  io: Io,
  noted?: { readonly tlsDir?: string },
): TlsOptions | undefined {
  if (noted && noted.tlsDir === undefined) return undefined;
  const dir = tlsDirOf(flags, io) ?? noted?.tlsDir;
  return dir === undefined ? undefined : { dir, role: "client" };
}
