/** A listening port that hands over only connections that may stay: counted, and with TLS of a peer whose certificate was verified. */
import { constants, type X509Certificate } from "node:crypto";
import { statSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import {
  createServer as createTlsServer,
  type TLSSocket,
  type Server as TlsServer,
} from "node:tls";
import { formatAddress, listenError } from "../listen.js";
import {
  roles as allRoles,
  commonNameOf,
  outOfDate,
  type Role,
  readIdentity,
  roleOfNames,
  type TlsOptions,
} from "./identity.js";
import type { ReportRefusal } from "./refusals.js";

export interface ListenerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Absent: plain TCP. */
  readonly tls?: TlsOptions | undefined;
  readonly protocol: "h2" | "http/1.1";
  /** With TLS: roles that may connect. Absent: any of ours; calls are checked later. */
  readonly roles?: readonly Role[];
  readonly onConnection: (socket: Socket) => void;
  readonly report: ReportRefusal;
  readonly limits?: Partial<ConnectionLimits>;
}

export interface ConnectionLimits {
  /** Open connections at once, in all and from one address. */
  readonly total: number;
  readonly perAddress: number;
}

export interface Listener {
  /** host:port, with the port that was taken. */
  readonly address: string;
  readonly port: number;
  /** Takes no further connection. */
  stop(): void;
  /** Cuts the connections that are left, and resolves when the port is free. */
  close(): Promise<void>;
}

/** More than a fleet of one worker per GPU on a few hundred machines needs. */
const defaultLimits: ConnectionLimits = { total: 2_048, perAddress: 256 };
const handshakeMs = 10_000;

/** Listens; rejects with `port-in-use`, `invalid-argument` (no such address here) or `unauthenticated` (certificate files). */
export async function listen(options: ListenerOptions): Promise<Listener> {
  const { host, port, tls, report } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const server = tls
    ? tlsServer(tls, options)
    : createServer({ noDelay: true }, options.onConnection);
  const open = countConnections(server, limits, report);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(listenError(host, port, error)));
    server.listen(port, host, resolve);
  });
  const { port: taken } = server.address() as AddressInfo;
  let closed: Promise<void> | undefined;
  const stop = (): void => {
    closed ??= new Promise((resolve) => {
      server.close(() => resolve());
    });
  };
  return {
    address: formatAddress(host, taken),
    port: taken,
    stop,
    close() {
      stop();
      for (const socket of open) socket.destroy();
      return closed as Promise<void>;
    },
  };
}

function countConnections(
  server: Server,
  { total, perAddress }: ConnectionLimits,
  report: ReportRefusal,
): ReadonlySet<Socket> {
  const open = new Set<Socket>();
  const perPeer = new Map<string, number>();
  server.maxConnections = total;
  server.on("drop", (data) => {
    report({
      who: "unknown",
      from: String(data?.remoteAddress),
      why: `${total} connections are open`,
    });
  });
  server.prependListener("connection", (socket: Socket) => {
    const from = String(socket.remoteAddress);
    const count = (perPeer.get(from) ?? 0) + 1;
    perPeer.set(from, count);
    open.add(socket);
    socket.once("close", () => {
      open.delete(socket);
      const left = (perPeer.get(from) ?? 1) - 1;
      if (left > 0) perPeer.set(from, left);
      else perPeer.delete(from);
    });
    if (count <= perAddress) return;
    report({ who: "unknown", from, why: `it has ${perAddress} connections open` });
    socket.destroy();
  });
  return open;
}

/** TLS 1.3 with certificates on both sides. The verdict is ours, not the library's, so that it can be logged with its reason. */
function tlsServer(tls: TlsOptions, options: ListenerOptions): TlsServer {
  const { protocol, onConnection, report, roles = allRoles } = options;
  const { ca, cert, key } = readIdentity(tls);
  const server = createTlsServer({
    ...{ ca, cert, key },
    requestCert: true,
    rejectUnauthorized: false,
    minVersion: "TLSv1.3",
    ALPNProtocols: [protocol],
    handshakeTimeout: handshakeMs,
    noDelay: true,
    // A resumed session would skip the verification of a certificate that has expired since.
    secureOptions: constants.SSL_OP_NO_TICKET,
  });
  server.on("secureConnection", (socket) => {
    const why = refusalOf(socket, roles);
    if (why === undefined) {
      onConnection(socket);
      return;
    }
    report({
      who: whoIs(socket.getPeerX509Certificate()),
      from: String(socket.remoteAddress),
      why,
    });
    socket.destroy();
  });
  server.on("tlsClientError", (error, socket) => {
    // Cut by ourselves, at the end.
    if (!server.listening) return;
    report({ who: "unknown", from: addressOf(socket), why: handshakeFailure(error) });
  });
  rereadOnChange(server, tls, report);
  return server;
}

/** A socket that is gone has forgotten its peer; the one below it remembers, as it was asked when it came. */
function addressOf(socket: TLSSocket & { readonly _parent?: Socket }): string {
  return socket.remoteAddress ?? socket._parent?.remoteAddress ?? "unknown";
}

function refusalOf(socket: TLSSocket, roles: readonly Role[]): string | undefined {
  const certificate = socket.getPeerX509Certificate();
  if (!certificate) return "it has no certificate";
  const late = outOfDate(certificate, Date.now());
  if (late !== undefined) return `certificate: ${late}`;
  if (!socket.authorized) {
    return `its certificate is not of our authority (${String(socket.authorizationError)})`;
  }
  const role = roleOfNames(certificate.subjectAltName);
  if (role !== undefined && roles.includes(role)) return undefined;
  return `expected a certificate of the role ${roles.join(" or ")}, received ${role ?? "one without a role"}`;
}

/** What an unverified certificate says of itself: for a log, not to be believed. */
function whoIs(certificate: X509Certificate | undefined): string {
  if (!certificate) return "unknown";
  const role = roleOfNames(certificate.subjectAltName) ?? "no role";
  return `${role} ${commonNameOf(certificate.subject)} (not verified)`;
}

function handshakeFailure(error: Error & { readonly code?: string }): string {
  const why = error.code ?? error.message;
  // What a caller does that trusts another authority than ours.
  if (why === "ECONNRESET") return "it left during the TLS handshake; does it trust our authority?";
  return why === "ERR_SSL_HTTP_REQUEST" || /WRONG_VERSION_NUMBER|PACKET_LENGTH/.test(why)
    ? "it does not speak TLS"
    : `the TLS handshake failed (${why.slice(0, 80)})`;
}

/** Renewed files are taken for the next connection; while they do not fit together, the old ones stay. */
function rereadOnChange(server: TlsServer, tls: TlsOptions, report: ReportRefusal): void {
  const files = ["ca.crt", `${tls.role}.crt`, `${tls.role}.key`].map((name) => join(tls.dir, name));
  const stamp = (): string =>
    files.map((file) => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0).join();
  let seen = stamp();
  server.prependListener("connection", () => {
    const now = stamp();
    if (now === seen) return;
    seen = now;
    try {
      const { ca, cert, key } = readIdentity(tls);
      server.setSecureContext({
        ca,
        cert,
        key,
        minVersion: "TLSv1.3",
        secureOptions: constants.SSL_OP_NO_TICKET,
      });
    } catch (error) {
      report({ who: "our own new certificate", from: tls.dir, why: (error as Error).message });
    }
  });
}
