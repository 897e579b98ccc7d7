import { once } from "node:events";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { ExchangeKey } from "./exchange.js";
import { createRedisExchange } from "./redis-exchange.js";
import { type RedisFixture, sameBytes, sampleBytes, startRedisFixture } from "./redis-fixture.js";

let redis: RedisFixture;
beforeAll(async () => {
  redis = await startRedisFixture();
});
afterEach(async () => {
  await redis.closeExchanges();
  await redis.admin.flushall();
});
afterAll(() => redis.stop());

const at = (step: number, key = "grad.0"): ExchangeKey => ({ generation: 1, step, key });

test("a worker of an older generation is refused at Redis, also in the middle of its work, and leaves nothing there", async () => {
  const run = redis.newRun();
  const zombie = await redis.enter(run, { worker: 0 });
  const fresh = await redis.enter(run, { generation: 2, worker: 0 });
  const stale = { code: "stale-generation" };
  await expect(zombie.send(at(5), 1, sampleBytes(10))).rejects.toMatchObject(stale);
  await expect(
    zombie.publish(at(5), new Map([["x", sampleBytes(10)]]), "anyone"),
  ).rejects.toMatchObject(stale);
  await expect(redis.enter(run, { worker: 1 })).rejects.toMatchObject(stale);
  expect(await redis.admin.keys(`paddock:${run}:payload:*`)).toEqual([]);
  expect(zombie.stats.inFlightBytes).toBe(0);
  await fresh.send({ ...at(5), generation: 2 }, 1, sampleBytes(10));
  await expect(fresh.send(at(5), 1, sampleBytes(10))).rejects.toMatchObject(stale);
});

test.each(["flushed", "restarted"])(
  "a Redis that was %s ends every wait at once, not at its timeout",
  async (how) => {
    const run = redis.newRun();
    const worker = await redis.enter(run, { worker: 0 });
    const waiting = [worker.receive(at(5), 1), worker.fetch(at(5, "weights"), 1, "x")];
    if (how === "flushed") await redis.admin.flushall();
    else await redis.restart();
    for (const wait of waiting) {
      await expect(wait).rejects.toMatchObject({
        code: "redis-unavailable",
        message: expect.stringContaining("has forgotten this run"),
      });
    }
  },
);

test("a generation removes what an older one left behind: payloads, tickets and queues", async () => {
  const run = redis.newRun();
  const dead = await redis.enter(run, { worker: 0 });
  await dead.publish(at(1, "weights"), new Map([["x", sampleBytes(5000)]]), "anyone");
  await dead.send(at(1), 1, sampleBytes(5000));
  await dead.close();
  const left = async (): Promise<string[]> =>
    (await redis.admin.keys("*")).filter((key) => /-g1-|:payload:1:|:live:1/.test(key));
  expect((await left()).length).toBeGreaterThan(5);
  const [a, b] = await Promise.all(
    [0, 1].map((worker) => redis.enter(run, { generation: 2, worker })),
  );
  expect(await left()).toEqual([]);
  await a?.send({ ...at(1), generation: 2 }, 1, sampleBytes(10));
  expect(await b?.receive({ ...at(1), generation: 2 }, 0)).toHaveLength(10);
});

test.each(["before", "while"])(
  "a flipped bit of a payload is found by its checksum, %s somebody waits for it",
  async (when) => {
    const run = redis.newRun();
    const a = await redis.enter(run, { worker: 0 });
    await a.send(at(7), 1, sampleBytes(1000));
    const [key = ""] = await redis.admin.keys(`paddock:${run}:payload:*`);
    const stored = (await redis.admin.getBuffer(key)) as Buffer;
    stored.writeUInt8(stored.readUInt8(500) ^ 4, 500);
    await redis.admin.set(key, stored);
    const b = await redis.enter(run, { worker: 1 });
    if (when === "before") {
      await expect
        .poll(() => redis.admin.zcard(`bull:paddock-x-${run}-g1-w1:failed`))
        .toBeGreaterThan(0);
    }
    await expect(b.receive(at(7), 0)).rejects.toThrow(
      /expected 1000 bytes with crc32c [0-9a-f]{8}, received 1000 with [0-9a-f]{8}/,
    );
  },
);

test("a payload that Redis lost is said to be gone", async () => {
  const run = redis.newRun();
  const a = await redis.enter(run, { worker: 0 });
  await a.send(at(7), 1, sampleBytes(5 * 2 ** 20));
  const keys = await redis.admin.keys(`paddock:${run}:payload:*`);
  await redis.admin.unlink(keys.sort().at(-1) as string);
  const b = await redis.enter(run, { worker: 1 });
  await expect(b.receive(at(7), 0)).rejects.toThrow(/are gone; was Redis restarted/);
});

test("a peer that stays silent is named with step, key and seconds; so is one that does not read", async () => {
  const run = redis.newRun();
  const limits = { timeoutMs: 200, maxInFlightBytes: 2 ** 20 };
  const b = await redis.enter(run, { worker: 1 }, limits);
  await expect(b.receive(at(9, "sum.x"), 0)).rejects.toThrow(
    /step 9: waited 0.2 s for sum.x from worker 0/,
  );
  await expect(b.fetch(at(9, "weights"), 0, "x")).rejects.toMatchObject({
    code: "exchange-timeout",
  });
  await expect(b.send(at(9), 0, sampleBytes(2 ** 20 + 1))).rejects.toThrow(
    /step 9: waited 0.2 s for worker 0 to read earlier messages, before grad.0/,
  );
});

test("closing ends every wait at once", async () => {
  const run = redis.newRun();
  const a = await redis.enter(run, { worker: 0 }, { maxInFlightBytes: 2 ** 20 });
  const waits = [
    a.receive(at(1), 1),
    a.fetch(at(1, "weights"), 1, "x"),
    a.send(at(1), 1, sampleBytes(3 * 2 ** 20)),
  ].map((wait) => expect(wait).rejects.toMatchObject({ code: "stale-generation" }));
  await new Promise((resolve) => setTimeout(resolve, 50));
  await a.close();
  await Promise.all(waits);
  await expect(a.receive(at(1), 1)).rejects.toMatchObject({ code: "stale-generation" });
});

test("connections that are cut again and again lose and double nothing", async () => {
  const [a, b] = await redis.pair({ pieceBytes: 100_000 });
  const cuts = (async () => {
    for (let i = 0; i < 12; i++) {
      await redis.admin.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
      await new Promise((resolve) => setTimeout(resolve, 40 + 10 * i));
    }
  })();
  const steps = [...Array(30).keys()];
  const sends = steps.map((step) => a.send(at(step), 1, sampleBytes(300_000 + step, step)));
  for (const step of steps) {
    const payload = await b.receive(at(step), 0);
    expect(sameBytes(payload, sampleBytes(300_000 + step, step))).toBe(true);
  }
  await Promise.all(sends);
  await a.publish(at(30, "weights"), new Map([["x", sampleBytes(500_000)]]), "anyone");
  expect(sameBytes(await b.fetch(at(30, "weights"), 0, "x"), sampleBytes(500_000))).toBe(true);
  await cuts;
});

test("a Redis that is gone is named with address, time and remedy but without its password; closing does not hang", async () => {
  const own = await startRedisFixture();
  const secret = own.url.replace("//", "//:hunter2@");
  await own.admin.config("SET", "requirepass", "hunter2");
  const a = createRedisExchange({
    redisUrl: secret,
    runId: "r",
    maxInFlightBytes: 2 ** 20,
    timeoutMs: 400,
  });
  await a.enter(1, 0, 2);
  own.server.kill("SIGKILL");
  await once(own.server, "exit");
  const error = await a.send(at(3), 1, sampleBytes(10)).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "redis-unavailable" });
  expect(String(error)).toMatch(/\*\*\*@127\.0\.0\.1:\d+ within 0\.4 s.*start it again/);
  expect(String(error)).not.toContain("hunter2");
  await expect(a.receive(at(3), 1)).rejects.toMatchObject({ code: "redis-unavailable" });
  await a.close();
  await own.stop();
});

test("a Redis that was never there is a clear error too", async () => {
  const a = createRedisExchange({
    redisUrl: "redis://127.0.0.1:1",
    runId: "r",
    maxInFlightBytes: 2 ** 20,
    timeoutMs: 200,
  });
  await expect(a.enter(1, 0, 2)).rejects.toMatchObject({ code: "redis-unavailable" });
  await a.close();
});

test("a Redis without room says so", async () => {
  const [a] = await redis.pair();
  await redis.admin.config("SET", "maxmemory", "1");
  try {
    await expect(a.send(at(1), 1, sampleBytes(100_000))).rejects.toThrow(/OOM.*maxmemory/);
  } finally {
    await redis.admin.config("SET", "maxmemory", "0");
  }
});
