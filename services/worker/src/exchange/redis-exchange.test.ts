import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Exchange, ExchangeKey } from "./exchange.js";
import { createRedisExchange, redisMemoryBound } from "./redis-exchange.js";

let server: ChildProcess;
let redisUrl: string;
let admin: Redis;
const directory = mkdtempSync(join(tmpdir(), "paddock-exchange-"));

beforeAll(async () => {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as { port: number };
  probe.close();
  server = spawn("redis-server", [
    "--port",
    String(port),
    "--save",
    "",
    "--appendonly",
    "no",
    "--dir",
    directory,
  ]);
  redisUrl = `redis://127.0.0.1:${port}`;
  admin = new Redis(redisUrl, { maxRetriesPerRequest: null });
  admin.on("error", () => undefined);
  await admin.ping();
});
afterAll(async () => {
  admin.disconnect();
  server.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
});

const open: Exchange[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((exchange) => exchange.close()));
});

let runs = 0;
function newRun(): string {
  return `run${runs++}`;
}

async function join2(
  runId: string,
  generation: number,
  worker: number,
  options = {},
): Promise<Exchange> {
  const exchange = createRedisExchange({
    redisUrl,
    runId,
    maxInFlightBytes: 8 * 2 ** 20,
    timeoutMs: 5000,
    ...options,
  });
  open.push(exchange);
  await exchange.enter(generation, worker, 2);
  return exchange;
}

async function pair(options = {}): Promise<[Exchange, Exchange]> {
  const runId = newRun();
  return [await join2(runId, 1, 0, options), await join2(runId, 1, 1, options)];
}

const at = (step: number, key = "grad.0"): ExchangeKey => ({ generation: 1, step, key });

function bytes(length: number): Uint8Array {
  const shared = new Uint8Array(new SharedArrayBuffer(length));
  for (let i = 0; i < length; i++) shared[i] = (i * 31 + (i >> 8)) & 255;
  return shared;
}

test("bytes arrive as they were sent, whether receiver or sender comes first, in pieces and empty", async () => {
  const [a, b] = await pair();
  for (const [step, length] of [0, 1, 1000, 5 * 2 ** 20 + 3].entries()) {
    const payload = bytes(length);
    const early = step % 2 ? b.receive(at(step), 0) : undefined;
    await a.send(at(step), 1, payload);
    const received = await (early ?? b.receive(at(step), 0));
    expect(Buffer.compare(Buffer.from(received), Buffer.from(payload))).toBe(0);
  }
  expect(await admin.keys("paddock:*:payload:*")).toEqual([]);
});

test("published parts can be read many times until they are retired", async () => {
  const [a, b] = await pair();
  const parts = new Map([
    ["student/block.0", bytes(3000)],
    ["teacher/block.0", bytes(4000)],
  ]);
  await a.publish(at(3, "weights"), parts);
  for (let i = 0; i < 3; i++) {
    const part = await b.fetch(at(3, "weights"), 0, "teacher/block.0");
    expect(Buffer.compare(Buffer.from(part), Buffer.from(bytes(4000)))).toBe(0);
  }
  await a.retire(4);
  expect(await admin.keys("paddock:*:payload:*")).toEqual([]);
});

test("a sender waits while too many of its bytes are unread, and goes on when they are read", async () => {
  const runId = newRun();
  const a = await join2(runId, 1, 0, { maxInFlightBytes: 100_000 });
  // Worker 1 is not there yet: nothing is read.
  await a.send(at(0), 1, bytes(80_000));
  let accepted = false;
  const second = a.send(at(1), 1, bytes(80_000)).then(() => {
    accepted = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(accepted).toBe(false);
  expect(a.stats.inFlightBytes).toBe(80_000);
  const b = await join2(runId, 1, 1);
  await b.receive(at(0), 0);
  await second;
  await b.receive(at(1), 0);
});

test("a worker of an older generation is refused at Redis, also in the middle of its work", async () => {
  const runId = newRun();
  const zombie = await join2(runId, 1, 0);
  const fresh = await join2(runId, 2, 0);
  await expect(zombie.send(at(5), 1, bytes(10))).rejects.toMatchObject({
    code: "stale-generation",
  });
  await expect(zombie.publish(at(5), new Map([["x", bytes(10)]]))).rejects.toMatchObject({
    code: "stale-generation",
  });
  await expect(join2(runId, 1, 1)).rejects.toMatchObject({ code: "stale-generation" });
  await fresh.send({ ...at(5), generation: 2 }, 1, bytes(10));
});

test("a flipped bit of a payload is found by its checksum", async () => {
  const runId = newRun();
  const a = await join2(runId, 1, 0);
  await a.send(at(7), 1, bytes(1000));
  const [key] = await admin.keys(`paddock:${runId}:payload:*`);
  const stored = (await admin.getBuffer(key as string)) as Buffer;
  stored[500] = (stored[500] as number) ^ 4;
  await admin.set(key as string, stored);
  const b = await join2(runId, 1, 1);
  await expect(b.receive(at(7), 0)).rejects.toMatchObject({ code: "exchange-corrupt" });
});

test("a peer that stays silent is named with step, key and seconds", async () => {
  const [, b] = await pair({ timeoutMs: 300 });
  await expect(b.receive(at(9, "sum.x"), 0)).rejects.toThrow(
    /step 9: waited 0.3 s for sum.x from worker 0/,
  );
});

test("closing ends every wait", async () => {
  const [, b] = await pair();
  const waiting = b.receive(at(1), 0);
  const failure = expect(waiting).rejects.toMatchObject({ code: "stale-generation" });
  await b.close();
  await failure;
});

test("the stated bound counts two published versions of both networks and what is in flight", () => {
  const bound = redisMemoryBound({
    parameters: 1e6,
    workers: 2,
    dtypeBytes: 2,
    maxInFlightBytes: 1e6,
  });
  expect(bound).toBe(8e6 + 2e6 + 8 * 2 ** 20);
});
