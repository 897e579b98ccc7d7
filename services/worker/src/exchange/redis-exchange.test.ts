import fc from "fast-check";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { ExchangeKey } from "./exchange.js";
import { createLocalExchange } from "./local-exchange.js";
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
const payloadKeys = (): Promise<string[]> => redis.admin.keys("paddock:*:payload:*");

test("bytes arrive as they were sent, whether receiver or sender comes first, in one piece, in fragments and empty", async () => {
  const [a, b] = await redis.pair();
  for (const [step, length] of [0, 1, 1000, 9 * 2 ** 20 + 3].entries()) {
    const payload = sampleBytes(length);
    const early = step % 2 ? b.receive(at(step), 0) : undefined;
    await a.send(at(step), 1, payload);
    expect(sameBytes(await (early ?? b.receive(at(step), 0)), payload)).toBe(true);
  }
  expect(b.stats.receivedBytes).toBe(1001 + 9 * 2 ** 20 + 3);
});

test("whatever is sent arrives once, by name and peer, and Redis holds none of it afterwards", async () => {
  const message = fc.record({ from: fc.nat(2), to: fc.nat(2), bytes: fc.nat(40_000) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(message, { maxLength: 12 }),
      fc.integer({ min: 500, max: 9000 }),
      async (all, pieceBytes) => {
        const run = redis.newRun();
        const fleet = await Promise.all(
          [0, 1, 2].map((worker) => redis.enter(run, { worker, workers: 3 }, { pieceBytes })),
        );
        const messages = all.filter(({ from, to }) => from !== to);
        const received = await Promise.all(
          messages.map(async ({ from, to, bytes }, i) => {
            const [sender, receiver] = [fleet[from], fleet[to]];
            await sender?.send(at(1, `m.${i}`), to, sampleBytes(bytes, i));
            return await receiver?.receive(at(1, `m.${i}`), from);
          }),
        );
        for (const [i, { bytes }] of messages.entries()) {
          expect(sameBytes(received[i] ?? sampleBytes(1), sampleBytes(bytes, i))).toBe(true);
        }
        await expect
          .poll(() => fleet.map((exchange) => exchange.stats.inFlightBytes))
          .toEqual([0, 0, 0]);
        expect(await redis.admin.keys(`paddock:${run}:payload:*`)).toEqual([]);
        await redis.closeExchanges();
      },
    ),
    { numRuns: 8 },
  );
});

test("tickets are references: the payload is in no job, and a receiver that comes late finds both", async () => {
  const run = redis.newRun();
  const a = await redis.enter(run, { worker: 0 });
  await a.send(at(0), 1, sampleBytes(3 * 2 ** 20));
  const parts = new Map(
    [...Array(20).keys()].map((i) => [`student/block.${i}`, sampleBytes(1000)]),
  );
  await a.publish(at(0, "weights"), parts, "anyone");
  const jobs = await redis.admin.keys(`bull:paddock-x-${run}-g1-w1:*-*`);
  expect(jobs).toHaveLength(2);
  for (const job of jobs) {
    const data = (await redis.admin.hget(job, "data")) as string;
    expect(data.length).toBeLessThan(1200);
    expect(JSON.parse(data)).toMatchObject({ run, generation: 1, step: 0, from: 0, to: 1 });
  }
  const b = await redis.enter(run, { worker: 1 });
  expect((await b.receive(at(0), 0)).byteLength).toBe(3 * 2 ** 20);
  expect(sameBytes(await b.fetch(at(0, "weights"), 0, "student/block.7"), sampleBytes(1000))).toBe(
    true,
  );
});

test("published parts can be read many times until they are retired", async () => {
  const [a, b] = await redis.pair();
  const parts = new Map([
    ["student/block.0", sampleBytes(3000)],
    ["teacher/block.0", sampleBytes(4000)],
    ["teacher/empty", sampleBytes(0)],
  ]);
  await a.publish(at(3, "weights"), parts, "anyone");
  for (let i = 0; i < 3; i++) {
    const part = await b.fetch(at(3, "weights"), 0, "teacher/block.0");
    expect(sameBytes(part, sampleBytes(4000))).toBe(true);
  }
  expect((await b.fetch(at(3, "weights"), 0, "teacher/empty")).byteLength).toBe(0);
  await expect(b.fetch(at(3, "weights"), 0, "teacher/block.9")).rejects.toThrow(
    /expected a part "teacher\/block.9", received student\/block.0/,
  );
  await a.retire(4);
  expect(await payloadKeys()).toEqual([]);
  await expect(b.fetch(at(3, "weights"), 0, "teacher/block.0")).rejects.toMatchObject({
    code: "exchange-corrupt",
  });
});

test("publishing keeps the version before, for peers that still read it, and no older one", async () => {
  const [a, b] = await redis.pair();
  for (let step = 0; step < 5; step++) {
    await a.publish(at(step, "weights"), new Map([["x", sampleBytes(500, step)]]), "anyone");
  }
  for (const step of [3, 4]) {
    const part = await b.fetch(at(step, "weights"), 0, "x");
    expect(sameBytes(part, sampleBytes(500, step))).toBe(true);
  }
  expect(await payloadKeys()).toHaveLength(2);
});

test("sending or publishing the same again changes nothing, also after it was read", async () => {
  const [a, b] = await redis.pair();
  const payload = sampleBytes(2000);
  await Promise.all([a.send(at(1), 1, payload), a.send(at(1), 1, payload)]);
  expect(sameBytes(await b.receive(at(1), 0), payload)).toBe(true);
  await a.send(at(1), 1, payload);
  const parts = new Map([["x", payload]]);
  await Promise.all([
    a.publish(at(1, "weights"), parts, "anyone"),
    a.publish(at(1, "weights"), parts, "anyone"),
  ]);
  expect(a.stats.sentBytes).toBe(4000);
  await expect.poll(() => a.stats.inFlightBytes).toBe(0);
});

test("a sender waits while too many of its bytes are unread, in order, and goes on when they are read", async () => {
  const run = redis.newRun();
  const limit = 2 ** 20;
  const a = await redis.enter(run, { worker: 0 }, { maxInFlightBytes: limit });
  // Worker 1 is not there yet: nothing is read.
  await a.send(at(0), 1, sampleBytes(0.8 * limit));
  const accepted: number[] = [];
  const sends = [1, 2].map(async (step) => {
    // The second would fit, but stands behind the first.
    await a.send(at(step), 1, sampleBytes(step === 1 ? limit : 100));
    accepted.push(step);
  });
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(accepted).toEqual([]);
  expect(a.stats.inFlightBytes).toBe(Math.floor(0.8 * limit));
  const b = await redis.enter(run, { worker: 1 });
  for (const step of [0, 1, 2]) await b.receive(at(step), 0);
  await Promise.all(sends);
  expect(accepted).toEqual([1, 2]);
});

test("a sender goes on when the acknowledgement was lost", async () => {
  const run = redis.newRun();
  const a = await redis.enter(run, { worker: 0 }, { maxInFlightBytes: 2 ** 20 });
  await a.send(at(0), 1, sampleBytes(2 ** 20));
  // As if worker 1 had read it and its word got lost.
  await redis.admin.unlink(...(await redis.admin.keys(`paddock:${run}:payload:*`)));
  await a.send(at(1), 1, sampleBytes(2 ** 20));
  expect(a.stats.inFlightBytes).toBe(2 ** 20);
});

test("a fleet of one talks to nobody", async () => {
  const alone = createLocalExchange();
  await alone.enter(1, 0, 1);
  await alone.retire(3);
  await expect(alone.enter(1, 0, 2)).rejects.toThrow(/one worker, not 2/);
  expect(() => alone.send(at(0), 1, sampleBytes(1))).toThrow(/no peers/);
  await alone.close();
});
