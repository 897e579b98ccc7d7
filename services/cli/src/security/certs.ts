/** `paddock certs`: an authority for one fleet and certificates of its roles, as PEM files in one folder. */
import { X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import {
  clockSkewMs,
  commonNameOf,
  createAuthority,
  issueCertificate,
  type KeyedCertificate,
  outOfDate,
  roleOfNames,
  roles,
} from "@paddock/service-kit";
import type { Io } from "../io.js";
import type { IssuedRole } from "./issued-roles.js";

interface CertFlags {
  readonly dir: string;
  readonly days: number;
  /** More DNS names and IP addresses than this machine's. */
  readonly host?: readonly string[];
}

export interface InitFlags extends CertFlags {
  readonly keep?: boolean;
}

const dayMs = 86_400_000;
/** The authority outlives what it issues. */
const authorityDays = 3_650;

/** Returns the exit code. Errors: `already-exists` when the folder has an authority. */
export async function certsInit(flags: InitFlags, io: Io): Promise<number> {
  const dir = resolve(io.cwd, flags.dir);
  if (existsSync(join(dir, "ca.crt"))) {
    if (flags.keep === true) {
      io.out(`kept       ${dir}\n`);
      return 0;
    }
    throw new PaddockError(
      "already-exists",
      `expected no authority in ${dir}, found ca.crt; choose another --dir, or renew a certificate with: paddock certs issue <role> --dir ${flags.dir}`,
    );
  }
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const authority = await createAuthority({
    name: `paddock ${hostname()}`,
    ...period(authorityDays),
  });
  await write(dir, "ca", authority);
  for (const role of roles) await write(dir, role, await issue(authority, role, flags));
  io.out(
    [
      `authority    ${join(dir, "ca.crt")} (keep ca.key here: whoever has it can be anybody in the fleet)`,
      ...roles.map((role) => `${role.padEnd(12)} ${join(dir, `${role}.crt`)}, ${role}.key`),
      "each machine needs ca.crt and the two files of its role\n",
    ].join("\n"),
  );
  return 0;
}

export interface IssueFlags extends CertFlags {
  readonly role: IssuedRole;
  readonly name?: string;
  /** Folder for the files, when they are for another machine. */
  readonly out?: string;
}

/** Returns the exit code. Errors: `not-found` without an authority. */
export async function certsIssue(flags: IssueFlags, io: Io): Promise<number> {
  const dir = resolve(io.cwd, flags.dir);
  const authority = await readAuthority(dir);
  const out = resolve(io.cwd, flags.out ?? dir);
  await mkdir(out, { recursive: true, mode: 0o700 });
  await write(out, flags.role, await issue(authority, flags.role, flags));
  if (out !== dir) await copyFile(join(dir, "ca.crt"), join(out, "ca.crt"));
  io.out(`${join(out, `${flags.role}.crt`)}\n`);
  return 0;
}

/** What lies in the folder, and until when it is good. Returns the exit code: 3 when something has expired. */
export async function certsShow(
  flags: { readonly dir: string; readonly json?: boolean },
  io: Io,
): Promise<number> {
  const dir = resolve(io.cwd, flags.dir);
  const names = (await readdir(dir).catch(() => [])).filter((name) => name.endsWith(".crt")).sort();
  if (names.length === 0) {
    throw new PaddockError(
      "not-found",
      `expected certificates in ${dir}, found none; make some with: paddock certs init --dir ${flags.dir}`,
    );
  }
  const shown = await Promise.all(names.map((name) => describe(join(dir, name), name)));
  io.out(flags.json ? `${JSON.stringify(shown)}\n` : shown.map(line).join(""));
  return shown.every(({ problem }) => problem === null) ? 0 : 3;
}

interface Shown {
  readonly file: string;
  readonly role: string;
  readonly name: string;
  readonly validTo: string;
  readonly names: string;
  readonly fingerprint256: string;
  readonly problem: string | null;
}

async function describe(path: string, file: string): Promise<Shown> {
  try {
    const cert = new X509Certificate(await readFile(path));
    return {
      file,
      role: cert.ca ? "authority" : (roleOfNames(cert.subjectAltName) ?? "other"),
      name: commonNameOf(cert.subject),
      validTo: new Date(cert.validTo).toISOString(),
      names: cert.subjectAltName ?? "",
      fingerprint256: cert.fingerprint256,
      problem: outOfDate(cert, Date.now()) ?? null,
    };
  } catch (error) {
    throw noCertificate(path, error);
  }
}

function noCertificate(path: string, cause: unknown): PaddockError {
  return new PaddockError(
    "invalid-argument",
    `${path}: expected a certificate in PEM, received ${(cause as Error).message}`,
    { cause },
  );
}

function line({ file, role, name, validTo, names, problem }: Shown): string {
  const state = problem === null ? `until ${validTo.slice(0, 10)}` : `NOT VALID: ${problem}`;
  return `${file.padEnd(16)} ${role.padEnd(12)} ${state}  ${name}${names === "" ? "" : ` (${names})`}\n`;
}

function period(days: number): { readonly notBefore: Date; readonly notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - clockSkewMs), notAfter: new Date(now + days * dayMs) };
}

function issue(
  authority: KeyedCertificate,
  role: IssuedRole,
  { days, host = [], ...flags }: CertFlags & { readonly name?: string },
): Promise<KeyedCertificate> {
  const hosts = [...new Set(["localhost", "127.0.0.1", "::1", hostname(), ...host])];
  return issueCertificate(authority, { role, name: flags.name ?? role, hosts, ...period(days) });
}

async function readAuthority(dir: string): Promise<KeyedCertificate> {
  try {
    const [cert, key] = await Promise.all(
      ["ca.crt", "ca.key"].map((name) => readFile(join(dir, name), "utf8")),
    );
    return { cert, key } as KeyedCertificate;
  } catch (error) {
    throw noAuthority(dir, error);
  }
}

function noAuthority(dir: string, cause: unknown): PaddockError {
  return new PaddockError(
    "not-found",
    `expected an authority's ca.crt and ca.key in ${dir}, received: ${(cause as Error).message}; make one with: paddock certs init`,
    { cause },
  );
}

/** Replaced in one piece each: who reads them at that moment finds old or new ones. */
async function write(dir: string, name: string, { cert, key }: KeyedCertificate): Promise<void> {
  for (const [file, text, mode] of [
    [`${name}.key`, key, 0o600],
    [`${name}.crt`, cert, 0o644],
  ] as const) {
    const path = join(dir, file);
    await writeFile(`${path}.tmp`, text, { mode });
    await rename(`${path}.tmp`, path);
  }
}
