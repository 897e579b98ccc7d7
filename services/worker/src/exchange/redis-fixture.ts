/** For tests: a Redis of their own on a free port, and exchanges on it that are closed after each test. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import type { Exchange } from "./exchange.js";
import { createRedisExchange, type RedisExchangeOptions } from "./redis-exchange.js";

export interface RedisFixture {
  readonly url: string;
  /** The process that runs now. */
  readonly server: ChildProcess;
  /** Kills it and starts another on the same port, empty. */
  restart(): Promise<void>;
  /** A connection for looking and for breaking things. */
  readonly admin: Redis;
  /** A name that no other test uses. */
  newRun(): string;
  /** An exchange that has entered a generation of `workers` (2). */
  enter(
    runId: string,
    member: { readonly generation?: number; readonly worker: number; readonly workers?: number },
    options?: Partial<RedisExchangeOptions>,
  ): Promise<Exchange>;
  /** Workers 0 and 1 of a new run. */
  pair(options?: Partial<RedisExchangeOptions>): Promise<[Exchange, Exchange]>;
  closeExchanges(): Promise<void>;
  stop(): Promise<void>;
}

export async function startRedisFixture(): Promise<RedisFixture> {
  const directory = mkdtempSync(join(tmpdir(), "paddock-exchange-"));
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, "close");
  const settings = ["--save", "", "--appendonly", "no", "--dir", directory];
  const start = (): ChildProcess =>
    spawn("redis-server", ["--port", String(port), ...settings], { stdio: "ignore" });
  let server = start();
  const url = `redis://127.0.0.1:${port}`;
  const admin = new Redis(url, { maxRetriesPerRequest: null });
  admin.on("error", () => undefined);
  await admin.ping();
  const exchanges: Exchange[] = [];
  let runs = 0;
  const fixture: RedisFixture = {
    url,
    get server() {
      return server;
    },
    admin,
    async restart() {
      server.kill("SIGKILL");
      await once(server, "exit");
      server = start();
      await admin.ping();
    },
    newRun: () => `run${runs++}`,
    async enter(runId, { generation = 1, worker, workers = 2 }, options = {}) {
      const exchange = createRedisExchange({
        redisUrl: url,
        runId,
        maxInFlightBytes: 8 * 2 ** 20,
        timeoutMs: 10_000,
        ...options,
      });
      exchanges.push(exchange);
      await exchange.enter(generation, worker, workers);
      return exchange;
    },
    async pair(options) {
      const runId = fixture.newRun();
      return [
        await fixture.enter(runId, { worker: 0 }, options),
        await fixture.enter(runId, { worker: 1 }, options),
      ];
    },
    async closeExchanges() {
      await Promise.all(exchanges.splice(0).map((exchange) => exchange.close()));
    },
    async stop() {
      await fixture.closeExchanges();
      admin.disconnect();
      server.kill("SIGKILL");
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return fixture;
}

/** Bytes on shared memory that differ from place to place. */
export function sampleBytes(length: number, seed = 0): Uint8Array {
  const bytes = new Uint8Array(new SharedArrayBuffer(length));
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8) * 7 + seed) & 255;
  return bytes;
}

/** Whether two arrays hold the same bytes, wherever they lie. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
