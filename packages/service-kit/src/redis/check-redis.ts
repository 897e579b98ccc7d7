/** Whether a Redis can be used: it answers, and it is new enough. */
import { PaddockError } from "@paddock/contract";
import { Redis } from "ioredis";
import { hideSecret, redisTarget } from "./redis-url.js";

/** What BullMQ recommends; GETDEL and LMOVE came with it. */
const oldest: readonly [number, number] = [6, 2];
const connectTimeoutMs = 5_000;

/**
 * The version of the Redis at `url` (a Valkey's is the Redis version it stands for).
 * Errors: `redis-unavailable` when it is no URL, does not answer a PING within 5 s, wants another password, or is too old.
 */
export async function checkRedis(url: string): Promise<{ version: string }> {
  if (!/^rediss?:\/\//.test(url)) {
    throw new PaddockError(
      "redis-unavailable",
      `expected a Redis URL such as redis://:password@host:6379, received ${hideSecret(url)}`,
    );
  }
  const info = await askInfo(url);
  const version = /^redis_version:(\d+\.\d+[\w.-]*)/m.exec(info)?.[1] ?? "unknown";
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
    throw new PaddockError(
      "redis-unavailable",
      `expected Redis ${oldest.join(".")} or newer at ${hideSecret(url)}, received ${version}; upgrade it, or leave --redis out to have one started`,
    );
  }
  return { version };
}

async function askInfo(url: string): Promise<string> {
  const target = redisTarget(url);
  const client = new Redis(target.url, {
    ...target.tls,
    lazyConnect: true,
    connectTimeout: connectTimeoutMs,
    commandTimeout: connectTimeoutMs,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: true,
    retryStrategy: () => null,
  });
  // `connect` only says "Connection is closed."; the reason comes as an event.
  let reason: string | undefined;
  client.on("error", ({ message }: Error) => {
    reason = message;
  });
  try {
    await client.connect();
    await client.ping();
    return await client.info("server");
  } catch (error) {
    throw unanswered(url, reason, error);
  } finally {
    client.disconnect();
  }
}

function unanswered(url: string, reason: string | undefined, cause: unknown): PaddockError {
  return new PaddockError(
    "redis-unavailable",
    `expected a Redis that answers at ${hideSecret(url)}, received: ${reason ?? PaddockError.from(cause).message}; ` +
      "start it, check the address and the password, or leave --redis out to have one started",
    { cause },
  );
}
