/** How a client's connection is protected, and what it means when that fails: a certificate's problem must not look like a lost server. */
import { type ChannelCredentials, type ChannelOptions, credentials } from "@grpc/grpc-js";
import { type ErrorCode, PaddockError } from "@paddock/contract";
import { type Role, readIdentity, roleOfNames, type TlsOptions } from "../security/identity.js";

export interface Secured {
  readonly credentials: ChannelCredentials;
  /** Channel options that go with them. */
  readonly options: ChannelOptions;
  /** The refusal that a failure of a call or a connection comes from, if it comes from one. */
  explain(error: unknown): PaddockError | undefined;
}

/** Plain TCP. @param unreachable code of a server that is not there: one that wants TLS looks much the same */
export function unsecured(address: string, unreachable: ErrorCode): Secured {
  return {
    credentials: credentials.createInsecure(),
    options: {},
    explain: (error) =>
      closedAtOnce(
        error,
        unreachable,
        `${address} closed the connection; if it wants TLS, pass --tls-dir`,
      ),
  };
}

/** TLS with our certificate to a server that has `serverRole`: roles count, not host names, so a worker cannot pose as the coordinator. */
export function securedBy(o: {
  readonly tls: TlsOptions;
  readonly serverRole: Role;
  readonly address: string;
  readonly unreachable: ErrorCode;
}): Secured {
  const { tls, serverRole, address, unreachable } = o;
  const { ca, cert, key } = readIdentity(tls);
  let wrongRole: PaddockError | undefined;
  return {
    credentials: credentials.createSsl(ca, key, cert, {
      checkServerIdentity(_host, { subjectaltname }) {
        const role = roleOfNames(subjectaltname);
        wrongRole = role === serverRole ? undefined : refusedRole(address, serverRole, role);
        return wrongRole;
      },
    }),
    // Sent as the server's name, which must not be an IP address; ours look at the role only.
    options: { "grpc.ssl_target_name_override": `${serverRole}.paddock` },
    explain: (error) =>
      wrongRole ??
      refusedServer(address, tls, error) ??
      closedAtOnce(
        error,
        unreachable,
        `${address} closed the connection after the TLS handshake; if it goes on, its log says why our ${tls.role} certificate is refused`,
      ),
  };
}

/** It could be connected to, and then was gone: either it refuses us, or it is just ending. */
function closedAtOnce(error: unknown, code: ErrorCode, what: string): PaddockError | undefined {
  const text = error instanceof Error ? error.message : "";
  if (!/Last error: (Failed to connect|read ECONNRESET|socket hang up)/.test(text))
    return undefined;
  return new PaddockError(code, what, { cause: error });
}

function refusedRole(address: string, expected: Role, received: Role | undefined): PaddockError {
  return new PaddockError(
    "permission-denied",
    `expected a ${expected} at ${address}, received a certificate of ${received ?? "no role"}; is this its address?`,
  );
}

/** OpenSSL's words for a server's certificate that we do not accept. */
const distrust =
  /certificate has expired|certificate is not yet valid|unable to (verify|get)[\w ]*certificate|self[- ]signed certificate/i;
/** A server that answers in plain text. */
const notTls = /wrong version number|packet length too long/i;

function refusedServer(
  address: string,
  { dir }: TlsOptions,
  error: unknown,
): PaddockError | undefined {
  const text = error instanceof Error ? error.message : String(error);
  const bad = distrust.exec(text)?.[0];
  if (bad !== undefined) {
    return new PaddockError(
      "unauthenticated",
      `expected ${address} to have a valid certificate of the authority in ${dir}/ca.crt, received: ${bad}; do both sides use certificates of one authority?`,
      { cause: error },
    );
  }
  if (!notTls.test(text)) return undefined;
  return new PaddockError(
    "unauthenticated",
    `expected TLS at ${address}, but it does not speak it; start it with --tls-dir, or leave --tls-dir out here`,
    { cause: error },
  );
}
