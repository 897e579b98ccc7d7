import { afterAll, beforeAll, expect, test } from "vitest";
import { type RedisFixture, sampleBytes, startRedisFixture } from "./redis-fixture.js";
import { redisMemoryBound } from "./redis-memory.js";

let redis: RedisFixture;
beforeAll(async () => {
  redis = await startRedisFixture();
});
afterAll(() => redis.stop());

async function usedMemory(): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.admin.info("memory"))?.[1]);
}

test("what Redis uses stays under the stated bound, through many steps and generations, and is mostly tensors", async () => {
  const workers = 3;
  const parameters = 1_500_000;
  const dtypeBytes = 2;
  const maxInFlightBytes = 4 * 2 ** 20;
  const before = await usedMemory();
  let peak = 0;
  let watching = true;
  const watch = (async () => {
    while (watching) {
      peak = Math.max(peak, (await usedMemory()) - before);
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
  })();
  const run = redis.newRun();
  const gradient = sampleBytes(maxInFlightBytes);
  const shard = sampleBytes((parameters * dtypeBytes) / workers / 4);
  for (const generation of [1, 2]) {
    const fleet = await Promise.all(
      [...Array(workers).keys()].map((worker) =>
        redis.enter(run, { generation, worker, workers }, { maxInFlightBytes }),
      ),
    );
    for (let step = 0; step < 4; step++) {
      const parts = new Map(
        ["student", "teacher"].flatMap((side) =>
          [...Array(4).keys()].map((unit) => [`${side}/${unit}`, shard] as const),
        ),
      );
      await Promise.all(
        fleet.map((x) => x.publish({ generation, step, key: "weights" }, parts, "anyone")),
      );
      // Twice as much as may be in flight, to each peer.
      const pairs = fleet.flatMap((x, from) =>
        fleet.flatMap((y, to) => (from === to ? [] : [{ x, y, from, to }])),
      );
      const key = { generation, step, key: "grad.0" };
      await Promise.all(
        pairs.flatMap(({ x, y, from, to }) => [
          x.send(key, to, gradient),
          y.receive(key, from),
          y.fetch({ generation, step, key: "weights" }, from, "teacher/2"),
        ]),
      );
    }
    // Killed: nothing is retired.
    await redis.closeExchanges();
  }
  watching = false;
  await watch;
  const bound = redisMemoryBound({ parameters, workers, dtypeBytes, maxInFlightBytes });
  const tensors = 4 * parameters * dtypeBytes;
  expect(peak).toBeLessThan(bound);
  expect(peak).toBeGreaterThan(tensors);
}, 30_000);

test("a full piece fits an allocation of its own size, not the next larger one", async () => {
  const run = redis.newRun();
  const x = await redis.enter(run, { worker: 0 });
  await x.publish(
    { generation: 1, step: 0, key: "weights" },
    new Map([["x", sampleBytes(2 ** 20 - 4096)]]),
    "anyone",
  );
  const [key = ""] = await redis.admin.keys(`paddock:${run}:payload:*`);
  expect(await redis.admin.memory("USAGE", key)).toBeLessThan(1.05 * 2 ** 20);
  await redis.closeExchanges();
});

test("the bound grows with published weights, workers and bytes in flight", () => {
  const base = { parameters: 1e6, workers: 2, dtypeBytes: 2, maxInFlightBytes: 2e6 };
  const bound = redisMemoryBound(base);
  expect(redisMemoryBound({ ...base, parameters: 2e6 }) - bound).toBe(1.25 * 8e6);
  expect(redisMemoryBound({ ...base, frozen: 1e6 }) - bound).toBe(1.25 * 4e6);
  expect(redisMemoryBound({ ...base, maxInFlightBytes: 4e6 }) - bound).toBe(1.25 * 4e6);
});
