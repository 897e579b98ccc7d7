/** Join tokens: a secret that lets a worker into one run until a date. Only its hash is kept where it is checked. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { PaddockError } from "@paddock/contract";

/** Metadata key of a worker's session call. */
export const joinTokenHeader = "paddock-join-token";

const format = /^pdk\.([0-9a-z]{1,11})\.[\w-]{43}$/;

/** A new token: 256 random bits, and its expiry (Unix ms, rounded down to seconds) for all to read. */
export function createJoinToken(expiresUnixMs: number): string {
  const seconds = Math.floor(expiresUnixMs / 1000).toString(36);
  return `pdk.${seconds}.${randomBytes(32).toString("base64url")}`;
}

/** When the token ends (Unix ms), or undefined when it is none. */
export function expiryOf(token: string): number | undefined {
  const match = format.exec(token);
  return match ? Number.parseInt(match[1] as string, 36) * 1000 : undefined;
}

/** SHA-256, lower-case hex: what is stored. Enough for random tokens, unlike for passwords. */
export function hashJoinToken(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

/** Whether two SHA-256 in hex are equal, in a time that does not tell where they differ. */
export function isSameHash(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a, "hex"), Buffer.from(b, "hex")];
  return left.length === 32 && right.length === 32 && timingSafeEqual(left, right);
}

/** The token in a file. Errors: `unauthenticated` when there is none, without showing what was there instead. */
export async function readJoinToken(file: string): Promise<string> {
  const text = await readFile(file, "utf8").catch((error: unknown) => {
    throw new PaddockError(
      "unauthenticated",
      `expected a join token in ${file}, received ${(error as Error).message}; make one with: paddock token create`,
      { cause: error },
    );
  });
  return checkJoinToken(text.trim(), file);
}

/** The token itself. Errors: `unauthenticated` when it has not the form of one. @param from where it was found */
export function checkJoinToken(token: string, from: string): string {
  if (expiryOf(token) !== undefined) return token;
  throw new PaddockError(
    "unauthenticated",
    `expected a join token (pdk.….…) in ${from}, received ${token.length} other characters; make one with: paddock token create`,
  );
}
