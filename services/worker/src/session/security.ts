/** How a worker shows who it is, and what it may do in the open. */
import { isLoopback, type TlsOptions } from "@paddock/service-kit";

export interface WorkerSecurity {
  /** Certificates on both sides, to the coordinator and between workers. Read again for every connection. */
  readonly tls?: TlsOptions | undefined;
  /** Lets it into the run where the coordinator asks for one. */
  readonly joinToken?: string | undefined;
  /** Listen without TLS where other machines reach it. */
  readonly insecureBind?: boolean;
}

/** Why collectives must not listen on `host`, or undefined: Gloo's connections have neither TLS nor a way to tell who connects. */
export function collectivesRefusal(
  host: string,
  security: WorkerSecurity = {},
): string | undefined {
  if (isLoopback(host) || security.insecureBind === true) return undefined;
  return `collectives have no TLS and would listen on ${host}; in a network that you trust, add --insecure-bind`;
}
