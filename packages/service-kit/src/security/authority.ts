/** A certificate authority for one fleet: made by a command, kept as two files, good for certificates with a role each. */
import { webcrypto } from "node:crypto";
import { isIP } from "node:net";
import { PaddockError } from "@paddock/contract";
import { roleUri } from "./identity.js";

/** A certificate and its private key (PKCS#8), both PEM. */
export interface KeyedCertificate {
  readonly cert: string;
  readonly key: string;
}

export interface Issue {
  /** Goes into `paddock://role/<role>`; one that no service knows is a server of another kind, such as redis. */
  readonly role: string;
  /** Common name: for people and logs. */
  readonly name: string;
  /** DNS names and IP addresses, for programs that check those instead of roles. */
  readonly hosts: readonly string[];
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** ECDSA on P-256: small, fast in handshakes, and every TLS has it. */
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
/** Clocks of a fleet differ a little. */
export const clockSkewMs = 5 * 60_000;

/** Loaded when needed: only commands that make certificates pay for it. */
async function library() {
  const x509 = await import("@peculiar/x509");
  x509.cryptoProvider.set(webcrypto);
  return x509;
}

/** A new self-signed authority. Whoever has its key can be anybody in the fleet. */
export async function createAuthority(o: {
  readonly name: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}): Promise<KeyedCertificate> {
  const x509 = await library();
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const { KeyUsageFlags: usage } = x509;
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [o.name] }],
    notBefore: o.notBefore,
    notAfter: o.notAfter,
    keys: keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(usage.keyCertSign | usage.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: pemText(cert.toString("pem")), key: await keyPem(keys.privateKey) };
}

/** A certificate of `authority` for a new key. Errors: `invalid-argument` when the authority's files are none. */
export async function issueCertificate(
  authority: KeyedCertificate,
  issue: Issue,
): Promise<KeyedCertificate> {
  const x509 = await library();
  const ca = parsed(() => new x509.X509Certificate(authority.cert));
  const signingKey = await webcrypto.subtle
    .importKey("pkcs8", derOf(authority.key), algorithm, false, ["sign"])
    .catch((error: unknown) => {
      throw notAuthority(error);
    });
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const { ExtendedKeyUsage: extended, KeyUsageFlags: usage } = x509;
  // People's certificates cannot pose as a server.
  const uses =
    issue.role === "client" ? [extended.clientAuth] : [extended.serverAuth, extended.clientAuth];
  const cert = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [issue.name] }],
    issuer: ca.subject,
    notBefore: issue.notBefore,
    notAfter: issue.notAfter,
    publicKey: keys.publicKey,
    signingKey: signingKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(usage.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(uses),
      new x509.SubjectAlternativeNameExtension([
        { type: "url", value: roleUri(issue.role) },
        ...issue.hosts.map((value) => ({
          type: isIP(value) > 0 ? ("ip" as const) : ("dns" as const),
          value,
        })),
      ]),
      await x509.AuthorityKeyIdentifierExtension.create(ca),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: pemText(cert.toString("pem")), key: await keyPem(keys.privateKey) };
}

async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key));
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN PRIVATE KEY-----\n${lines.join("\n")}\n-----END PRIVATE KEY-----\n`;
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ""), "base64");
}

function pemText(pem: string): string {
  return `${pem.replaceAll("\r", "").trim()}\n`;
}

function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw notAuthority(error);
  }
}

function notAuthority(cause: unknown): PaddockError {
  return new PaddockError(
    "invalid-argument",
    `expected an authority's ca.crt and ca.key in PEM, received: ${String(cause)}; make one with: paddock certs init`,
    { cause },
  );
}
