/** A Redis or Valkey server of our own: a child process on a free loopback port, which cannot outlive us. */
import { type ChildProcess, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { PaddockError } from "@paddock/contract";
import { checkRedis } from "./check-redis.js";
import { spawnTied } from "./tied-process.js";

/** Programs that are tried, in this order. */
export const redisPrograms = ["redis-server", "valkey-server"] as const;
export type RedisProgram = (typeof redisPrograms)[number];

export interface ServerOptions {
  readonly program: RedisProgram;
  readonly dir: string;
  readonly path?: string | undefined;
  /** Told when the server has ended by itself and is started again. */
  readonly onRestart?: ((end: number | string) => void) | undefined;
}

export interface RedisServer {
  readonly url: string;
  /** Process id of the server that runs now. */
  pid(): number;
  close(): Promise<void>;
}

const startTimeoutMs = 10_000;
const stopTimeoutMs = 5_000;
const maxRestarts = 3;

/**
 * A started server that answers, or undefined when the program is not on PATH. When it ends by itself (killed for memory, say)
 * it is started again, empty, at the same URL, up to 3 times: a run then goes on from its last checkpoint.
 * Another process may take the free port before the server does: it is tried again on another one.
 */
export async function startServer(options: ServerOptions): Promise<RedisServer | undefined> {
  if (!isOnPath(options)) return undefined;
  await mkdir(options.dir, { recursive: true });
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(options);
    } catch (error) {
      const portTaken = error instanceof PaddockError && error.message.includes("in use");
      if (!portTaken || attempt === 3) throw error;
    }
  }
}

function isOnPath({ program, path }: ServerOptions): boolean {
  const env = path === undefined ? {} : { env: { PATH: path } };
  return spawnSync(program, ["--version"], { stdio: "ignore", ...env }).error === undefined;
}

async function startOnce(options: ServerOptions): Promise<RedisServer> {
  const { program, dir, path } = options;
  const port = await freePort();
  const password = randomBytes(18).toString("base64url");
  const config = join(dir, "redis.conf");
  const logFile = join(dir, "redis.log");
  // In a file only we can read, not in the arguments, which every user of the machine can see.
  await writeFile(config, configText({ port, password, dir, logFile }), { mode: 0o600 });
  const url = `redis://:${password}@127.0.0.1:${port}`;
  const launch = (): ChildProcess => spawnTied(program, [config], path);
  const first = launch();
  try {
    await answers(first, url, logFile);
  } catch (error) {
    await stop(first);
    throw error;
  }
  return { url, ...supervise(first, launch, options.onRestart) };
}

function supervise(
  first: ChildProcess,
  launch: () => ChildProcess,
  onRestart: ServerOptions["onRestart"],
): Pick<RedisServer, "pid" | "close"> {
  let child = first;
  let restarts = 0;
  let closing = false;
  const watch = (): void => {
    child.once("exit", (code, signal) => {
      if (closing || restarts++ >= maxRestarts) return;
      onRestart?.(signal ?? code ?? "unknown");
      child = launch();
      watch();
    });
  };
  watch();
  return {
    pid: () => child.pid ?? -1,
    async close() {
      closing = true;
      await stop(child);
    },
  };
}

/** Nothing on disk, nothing evicted (BullMQ needs its keys), loopback only. */
function configText(o: { port: number; password: string; dir: string; logFile: string }): string {
  return [
    "bind 127.0.0.1",
    `port ${o.port}`,
    `requirepass ${o.password}`,
    `dir ${quote(o.dir)}`,
    `logfile ${quote(o.logFile)}`,
    'save ""',
    "appendonly no",
    "maxmemory-policy noeviction",
    "daemonize no",
    "",
  ].join("\n");
}

/** A string of redis.conf, whose escapes are those of JSON. */
function quote(text: string): string {
  return JSON.stringify(text);
}

/** Resolves when the server answers; rejects with the end of its log when it ends or stays silent. */
async function answers(child: ChildProcess, url: string, logFile: string): Promise<void> {
  const deadline = performance.now() + startTimeoutMs;
  while (child.exitCode === null && child.signalCode === null && performance.now() < deadline) {
    try {
      await checkRedis(url);
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  const log = await readFile(logFile, "utf8").catch(() => "");
  throw new PaddockError(
    "redis-unavailable",
    `expected the Redis we started to answer within ${startTimeoutMs / 1000} s, received: ${log.trim().split("\n").slice(-3).join(" | ") || "no log"}; see ${logFile}, or pass --redis URL`,
  );
}

/** Terminates the server and waits for its end. */
async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
  await exited;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}
