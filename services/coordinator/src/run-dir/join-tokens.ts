/** `join-tokens/<sha256>.json`: hashes of the tokens that let workers into the run of this directory. Deleting a file revokes one. */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { invariant, PaddockError } from "@paddock/contract";
import { diskError, expiryOf, hashJoinToken, isSameHash, writeDurably } from "@paddock/service-kit";

interface StoredToken {
  /** The run it is for; null: the one that is started in this directory. */
  readonly runId: string | null;
  readonly expiresUnixMs: number;
}

export interface JoinTokens {
  /** Whether workers need one: somebody made tokens for this run. Looked up anew each time. */
  areUsed(): Promise<boolean>;
  /** Why the token does not let a worker into the run, or undefined when it does. */
  refusalOf(
    token: string | undefined,
    runId: string,
    nowUnixMs: number,
  ): Promise<string | undefined>;
}

const folderOf = (runDir: string): string => join(runDir, "join-tokens");

/**
 * Lets the token into the run of the directory, or, if there is none yet, into the one that is started there. Only its hash is written.
 * A token that is known already stays as it is. Errors: `disk-unavailable`.
 */
export async function addJoinToken(
  runDir: string,
  token: string,
  runId: string | null,
): Promise<void> {
  const folder = folderOf(runDir);
  const file = fileOf(runDir, token);
  if (existsSync(file)) return;
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw diskError(error, `make ${folder}`);
  }
  await store(file, { runId, expiresUnixMs: expiryOf(token) ?? 0 });
}

function fileOf(runDir: string, token: string): string {
  return join(folderOf(runDir), `${hashJoinToken(token)}.json`);
}

function store(file: string, stored: StoredToken): Promise<void> {
  return writeDurably(file, `${JSON.stringify(stored)}\n`);
}

/** @param extra tokens that are good as long as this process lives, but do not make one necessary */
export function openJoinTokens(runDir: string, extra: readonly string[] = []): JoinTokens {
  const folder = folderOf(runDir);
  const hashes = async (): Promise<string[]> => {
    const names = await readdir(folder).catch(() => []);
    return names
      .filter((name) => /^[0-9a-f]{64}\.json$/.test(name))
      .map((name) => name.slice(0, 64));
  };
  const extraHashes = extra.map(hashJoinToken);
  return {
    areUsed: async () => (await hashes()).length > 0,
    async refusalOf(token, runId, now) {
      if (token === undefined) return "it has no join token";
      const expires = expiryOf(token);
      if (expires === undefined) return "its join token is malformed";
      if (now >= expires) return `its join token expired at ${new Date(expires).toISOString()}`;
      const hash = hashJoinToken(token);
      if (extraHashes.some((known) => isSameHash(known, hash))) return undefined;
      const known = (await hashes()).find((stored) => isSameHash(stored, hash));
      if (known === undefined) return "its join token is unknown here";
      return refusalByRecord(join(folder, `${known}.json`), runId, now);
    },
  };
}

async function refusalByRecord(
  file: string,
  runId: string,
  now: number,
): Promise<string | undefined> {
  const { runId: boundTo, expiresUnixMs } = await readStored(file);
  if (boundTo !== null && boundTo !== runId) return "its join token is for another run";
  // The file may end a token earlier than the token says.
  if (now >= expiresUnixMs) return "its join token has been ended";
  // From now on it is for this run, wherever the directory may be copied to.
  if (boundTo === null && runId !== "") await store(file, { runId, expiresUnixMs });
  return undefined;
}

async function readStored(file: string): Promise<StoredToken> {
  const text = await readFile(file, "utf8").catch((error: unknown) => {
    throw damaged(file, error);
  });
  try {
    const { runId, expiresUnixMs } = JSON.parse(text) as StoredToken;
    const isRun = runId === null || typeof runId === "string";
    invariant(isRun && Number.isSafeInteger(expiresUnixMs), "a run and a date");
    return { runId, expiresUnixMs };
  } catch (error) {
    throw damaged(file, error);
  }
}

function damaged(file: string, cause: unknown): PaddockError {
  return new PaddockError(
    "unauthenticated",
    `expected a join token's record in ${file}, received something else; delete the file and make a new token`,
    { cause },
  );
}
