/** A Redis for a run, without asking: the given one, else a server from PATH, else a Docker container. */
import { PaddockError } from "@paddock/contract";
import { isLoopback } from "../security/bind.js";
import { checkRedis } from "./check-redis.js";
import { startContainer } from "./redis-container.js";
import { type RedisProgram, redisPrograms, startServer } from "./redis-server.js";
import { hideSecret, redisHost } from "./redis-url.js";

/** Where the Redis came from. */
export type RedisRoute = "given" | RedisProgram | "docker";

export interface OpenRedis {
  /** With the password, if any: give it to workers, never to a log. */
  readonly url: string;
  readonly route: RedisRoute;
  /** For people: program, version and address, without the password. */
  readonly description: string;
  /** Stops what was started here; leaves a given Redis alone. May be called twice. */
  close(): Promise<void>;
}

/** The part of a logger that is used here. */
export interface RedisLogger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface OpenRedisOptions {
  /** Use this Redis and no other: `redis://` or `rediss://`. */
  readonly url?: string | undefined;
  /** Folder for a started server's configuration, log and (unused) dump: inside the run directory. Made if absent. */
  readonly dir: string;
  readonly logger?: RedisLogger | undefined;
  /** Search path for programs, instead of the PATH of this process. */
  readonly path?: string | undefined;
}

/**
 * A Redis (or Valkey) of version 6.2 or newer that answers. The caller closes it. A started server listens on a free loopback
 * port with a random password, keeps nothing on disk, never evicts, comes back when it dies, and ends with this process however that ends.
 * Errors: `redis-unavailable` with the remedy.
 */
export async function openRedis(options: OpenRedisOptions): Promise<OpenRedis> {
  const opened = await open(options);
  options.logger?.info({ route: opened.route, redis: opened.description }, "redis ready");
  return opened;
}

async function open({ url, dir, path, logger }: OpenRedisOptions): Promise<OpenRedis> {
  if (url !== undefined) {
    const { version } = await checkRedis(url);
    if (url.startsWith("redis:") && !isLoopback(redisHost(url) ?? "")) {
      logger?.warn(
        { redis: hideSecret(url) },
        "Redis without TLS on another machine: whoever sees that network reads its password, weights and gradients; rediss:// encrypts",
      );
    }
    const description = `${hideSecret(url)}, version ${version}`;
    return { url, route: "given", description, close: () => Promise.resolve() };
  }
  for (const program of redisPrograms) {
    const server = await startServer({
      program,
      dir,
      path,
      onRestart: (end) => logger?.warn({ end }, "our Redis ended by itself; started it again"),
    });
    if (server) return checked(program, server);
  }
  const container = await startContainer();
  if (container.kind === "started") return checked("docker", container);
  throw new PaddockError(
    "redis-unavailable",
    `expected a Redis: found no ${redisPrograms.join(" or ")} on PATH, and no Docker (${container.reason}); ` +
      "install one (Debian: apt-get install redis-server), or pass --redis URL or set REDIS_URL",
  );
}

interface Started {
  readonly url: string;
  close(): Promise<void>;
}

async function checked(route: RedisRoute, { url, close }: Started): Promise<OpenRedis> {
  try {
    const { version } = await checkRedis(url);
    return { url, route, close, description: `${route} ${version} at ${hideSecret(url)}` };
  } catch (error) {
    await close();
    throw error;
  }
}
