/** Who a process is to others: a certificate with one role, its key, and the authority that both sides trust. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { PaddockError } from "@paddock/contract";

/** What a certificate lets its holder be. Each service names the roles that may call it. */
export const roles = ["coordinator", "worker", "client"] as const;
export type Role = (typeof roles)[number];

/** Where a process finds its certificate: `ca.crt`, `<role>.crt` and `<role>.key` in `dir`. */
export interface TlsOptions {
  readonly dir: string;
  readonly role: Role;
}

export interface Identity {
  readonly role: Role;
  /** PEM. */
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** A peer whose certificate was verified. */
export interface PeerIdentity {
  readonly role: Role;
  /** Common name of its certificate. */
  readonly name: string;
}

const rolePrefix = "paddock://role/";
/** A certificate and its key are a few kilobytes; more is some other file. */
const maxPemBytes = 256 * 1024;

/** The subject alternative name that carries a role. */
export function roleUri(role: string): string {
  return `${rolePrefix}${role}`;
}

/**
 * The one role that the names of a certificate say (`subjectAltName` as Node prints it), or undefined when there is none, more than
 * one, or an unknown one.
 */
export function roleOfNames(names: string | undefined): Role | undefined {
  const found = (names ?? "")
    .split(", ")
    .filter((name) => name.startsWith(`URI:${rolePrefix}`))
    .map((name) => name.slice(`URI:${rolePrefix}`.length));
  return found.length === 1 ? roles.find((role) => role === found[0]) : undefined;
}

/** "CN" of a subject as Node prints it, safe to log. */
export function commonNameOf(subject: string): string {
  const name = /^CN=(.*)$/m.exec(subject)?.[1] ?? "no name";
  return name.replace(/[^\w.@ -]/g, "?").slice(0, 64);
}

/**
 * Reads and checks the files, each time: new ones are found by whoever connects or listens next. Errors: `unauthenticated`, with the
 * file and the remedy, when one is missing, damaged, expired, of another role or of another authority.
 */
export function readIdentity({ dir, role }: TlsOptions): Identity {
  const [ca, cert, key] = ["ca.crt", `${role}.crt`, `${role}.key`].map((name) =>
    readPem(join(dir, name), role),
  ) as [Buffer, Buffer, Buffer];
  const file = join(dir, `${role}.crt`);
  const own = parse(cert, file, role);
  const has = roleOfNames(own.subjectAltName);
  if (has !== role) {
    const names = own.subjectAltName ?? "none";
    throw refuse(file, `expected the role ${role} (${roleUri(role)}), received ${names}`, role);
  }
  checkDates(own, file, role);
  const authorities = bundle(ca).map((pem) => parse(pem, join(dir, "ca.crt"), role));
  if (!authorities.some((authority) => isIssued(own, authority))) {
    throw refuse(file, "expected a certificate of the authority in ca.crt, received another", role);
  }
  try {
    createSecureContext({ ca, cert, key });
  } catch (error) {
    throw refuse(join(dir, `${role}.key`), "expected the certificate's key", role, error);
  }
  return { role, ca, cert, key };
}

function readPem(file: string, role: Role): Buffer {
  try {
    const pem = readFileSync(file);
    if (pem.length > maxPemBytes) throw new Error(`${pem.length} bytes`);
    return pem;
  } catch (error) {
    throw refuse(file, `expected a PEM file, received ${(error as Error).message}`, role, error);
  }
}

function parse(pem: Buffer | string, file: string, role: Role): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    const { message } = error as Error;
    throw refuse(file, `expected a certificate in PEM, received ${message}`, role, error);
  }
}

function checkDates(own: X509Certificate, file: string, role: Role): void {
  const why = outOfDate(own, Date.now());
  if (why !== undefined) throw refuse(file, `expected a valid certificate, but ${why}`, role);
}

/** Why a certificate is not valid at `now` (Unix ms), or undefined. */
export function outOfDate(
  { validFrom, validTo }: Pick<X509Certificate, "validFrom" | "validTo">,
  now: number,
): string | undefined {
  if (now < Date.parse(validFrom)) return `it is not valid before ${validFrom}`;
  if (now > Date.parse(validTo)) return `it expired on ${validTo}`;
  return undefined;
}

/** The certificates of a file: two while one authority takes over from another. */
function bundle(pem: Buffer): readonly string[] {
  const block = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
  return pem.toString("latin1").match(block) ?? [];
}

function isIssued(own: X509Certificate, authority: X509Certificate): boolean {
  return own.checkIssued(authority) && own.verify(authority.publicKey);
}

function refuse(file: string, what: string, role: Role, cause?: unknown): PaddockError {
  return new PaddockError(
    "unauthenticated",
    `${file}: ${what}; make one with: paddock certs issue ${role} --dir DIR`,
    { cause },
  );
}
