import { whyNoGroups } from "@paddock/engine";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { createCollectiveExchange } from "./collective-exchange.js";
import type { Exchange, ExchangeKey } from "./exchange.js";
import { type RedisFixture, sameBytes, sampleBytes, startRedisFixture } from "./redis-fixture.js";

const missing = whyNoGroups();

let redis: RedisFixture;
const opened: Exchange[] = [];
beforeAll(async () => {
  redis = await startRedisFixture();
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((exchange) => exchange.close()));
  await redis.admin.flushall();
});
afterAll(() => redis.stop());

const at = (step: number, key = "grad.0", generation = 1): ExchangeKey => ({
  generation,
  step,
  key,
});

interface Fleet {
  readonly workers: Exchange[];
  /** What each was told about collectives. */
  readonly meetings: (string | undefined)[];
}

/** A generation of one worker per host, on one machine. */
async function fleetOf(
  hosts: readonly string[],
  { run = redis.newRun(), generation = 1, timeoutMs = 10_000 } = {},
): Promise<Fleet> {
  const meetings: (string | undefined)[] = [];
  const workers = hosts.map((host, worker) => {
    const exchange = createCollectiveExchange({
      redisUrl: redis.url,
      runId: run,
      maxInFlightBytes: 2 ** 20,
      timeoutMs,
      host,
      onMeeting: (why) => {
        meetings[worker] = why;
      },
    });
    opened.push(exchange);
    return exchange;
  });
  await Promise.all(workers.map((x, worker) => x.enter(generation, worker, hosts.length)));
  return { workers, meetings };
}

/** Everybody publishes, gathers and exchanges; checks what arrives. */
async function expectExchange({ workers }: Fleet, step: number, generation = 1): Promise<void> {
  const sizeOf = (worker: number): number => 1000 + worker;
  await Promise.all(
    workers.map(async (exchange, me) => {
      const parts = new Map([["student/x", sampleBytes(sizeOf(me), me)]]);
      await exchange.publish(at(step, "weights", generation), parts, "everyone");
      const sizes = workers.map((_, worker) => sizeOf(worker));
      const outgoing = workers.map((_, to) => sampleBytes(to === me ? 0 : 50 + to, 10 * me + to));
      const [gathered, received] = await Promise.all([
        exchange.gather(at(step, "weights", generation), "student/x", sizes),
        exchange.allToAll(
          at(step, "grad.0", generation),
          outgoing,
          workers.map((_, from) => (from === me ? 0 : 50 + me)),
        ),
      ]);
      for (const from of workers.keys()) {
        const [part, message] = [gathered[from], received[from]] as [Uint8Array, Uint8Array];
        expect([part.length, message.length]).toEqual(
          from === me ? [0, 0] : [sizeOf(from), 50 + me],
        );
        if (from === me) continue;
        expect(sameBytes(part, sampleBytes(sizeOf(from), from))).toBe(true);
        expect(sameBytes(message, sampleBytes(50 + me, 10 * from + me))).toBe(true);
      }
    }),
  );
}

describe.skipIf(missing)(`the collective exchange ${missing ?? ""}`, () => {
  test("weights and gradients go from worker to worker, none of them through Redis", async () => {
    const fleet = await fleetOf(["127.0.0.1", "127.0.0.1", "127.0.0.1"]);
    expect(fleet.meetings).toEqual([undefined, undefined, undefined]);
    const before = fleet.workers[0]?.stats.sentBytes as number;
    for (const step of [0, 1, 2]) await expectExchange(fleet, step);
    expect(await redis.admin.keys("paddock:*:payload:*")).toEqual([]);
    const sent = (fleet.workers[0]?.stats.sentBytes as number) - before;
    expect(sent).toBe(3 * (2 * 1000 + 51 + 52));
  });

  test("what is published for anyone can also be fetched by one worker alone", async () => {
    const { workers } = await fleetOf(["127.0.0.1", "127.0.0.1"]);
    const [a, b] = workers as [Exchange, Exchange];
    await a.publish(at(3, "weights"), new Map([["teacher/x", sampleBytes(700)]]), "anyone");
    const part = await b.fetch(at(3, "weights"), 0, "teacher/x");
    expect(sameBytes(part, sampleBytes(700))).toBe(true);
    await a.retire(4);
    expect(await redis.admin.keys("paddock:*:payload:*")).toEqual([]);
  });

  test("if one worker cannot listen, all go through Redis and say why", async () => {
    // An address of documentation (RFC 5737): not this machine's.
    const fleet = await fleetOf(["127.0.0.1", "203.0.113.7", "127.0.0.1"]);
    for (const why of fleet.meetings) expect(why).toMatch(/^worker 1: listening on 203\.0\.113\.7/);
    for (const step of [0, 1]) await expectExchange(fleet, step);
  });

  test("closing ends a wait here as stale, on the peer as a lost worker, and a new generation works", async () => {
    const run = redis.newRun();
    const { workers } = await fleetOf(["127.0.0.1", "127.0.0.1"], { run });
    const [a, b] = workers as [Exchange, Exchange];
    const nothing = new Uint8Array(0);
    const mine = a.allToAll(at(5), [nothing, sampleBytes(9)], [0, 9]);
    const closing = expect(mine).rejects.toMatchObject({ code: "stale-generation" });
    await a.close();
    await closing;
    const theirs = b.allToAll(at(5), [sampleBytes(9), nothing], [9, 0]);
    await expect(theirs).rejects.toMatchObject({
      code: "worker-lost",
      message: expect.stringMatching(/^grad\.0 of step 5: the connection to rank 0 broke/),
    });
    await b.close();
    const next = await fleetOf(["127.0.0.1", "127.0.0.1"], { run, generation: 2 });
    expect(next.meetings).toEqual([undefined, undefined]);
    await expectExchange(next, 5, 2);
  });

  test("a peer that never comes ends the wait, with what to change", async () => {
    const { workers } = await fleetOf(["127.0.0.1", "127.0.0.1"], { timeoutMs: 500 });
    const late = workers[0]?.allToAll(at(7), [new Uint8Array(0), sampleBytes(9)], [0, 9]);
    await expect(late).rejects.toMatchObject({
      code: "exchange-timeout",
      message: expect.stringContaining("raise exchange.timeoutSeconds"),
    });
  });
});
