/** What flags and environment say about tokens and passwords. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import type { CoordinatorSecurity } from "@paddock/coordinator";
import { checkJoinToken, createJoinToken, readJoinToken, withRedisCa } from "@paddock/service-kit";
import type { Io } from "../io.js";
import { type TlsFlags, tlsDirOf } from "./client-tls.js";

/** Of every command that runs one. */
export interface SecurityFlags extends TlsFlags {
  readonly joinTokenFile?: string;
  readonly insecureBind?: boolean;
}

export interface RedisFlags {
  readonly redis?: string;
  readonly redisFile?: string;
  readonly redisCa?: string;
}

/** Longer than any run of which the process lives as long. */
const localTokenMs = 365 * 24 * 3_600_000;

/** Errors: `unauthenticated` when the token's file holds none. */
export async function coordinatorSecurity(
  flags: SecurityFlags,
  io: Io,
): Promise<CoordinatorSecurity> {
  const dir = tlsDirOf(flags, io);
  const variable = io.environment["PADDOCK_JOIN_TOKEN"] || undefined;
  const { joinTokenFile: file, insecureBind = false } = flags;
  let joinToken: string | undefined;
  if (file !== undefined) joinToken = await readJoinToken(resolve(io.cwd, file));
  else if (variable !== undefined) joinToken = checkJoinToken(variable, "PADDOCK_JOIN_TOKEN");
  return {
    insecureBind,
    localToken: createJoinToken(Date.now() + localTokenMs),
    ...(dir === undefined ? {} : { tls: { dir, role: "coordinator" } as const }),
    ...(joinToken === undefined ? {} : { joinToken }),
  };
}

/**
 * The Redis that was named: --redis, --redis-file, PADDOCK_REDIS_URL, REDIS_URL; undefined: none, one is to be started.
 * Errors: `redis-unavailable` when a file cannot be read.
 */
export async function redisUrlOf(flags: RedisFlags, io: Io): Promise<string | undefined> {
  const { environment, cwd } = io;
  const url =
    flags.redis ??
    (flags.redisFile === undefined
      ? environment["PADDOCK_REDIS_URL"] || environment["REDIS_URL"] || undefined
      : (await readText(resolve(cwd, flags.redisFile), "a Redis URL")).trim());
  const ca = flags.redisCa ?? (environment["PADDOCK_REDIS_CA"] || undefined);
  if (url === undefined || ca === undefined) return url;
  return withRedisCa(url, await readText(resolve(cwd, ca), "the authority of Redis' certificate"));
}

async function readText(file: string, what: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw unreadable(file, what, error);
  }
}

function unreadable(file: string, what: string, cause: unknown): PaddockError {
  return new PaddockError(
    "redis-unavailable",
    `expected ${what} in ${file}, received: ${(cause as Error).message}; check the path`,
    { cause },
  );
}
