/** What a run may hold: memory per worker, gathered units, Redis, and the main thread's attention. */
import { join } from "node:path";
import { layoutOf, parseRunSpec } from "@paddock/contract";
import { redisMemoryBound } from "@paddock/worker";
import { afterAll, expect, test } from "vitest";
import {
  paddock,
  readSteps,
  scratch,
  startPaddock,
  tinySpec,
  until,
  writeTinyRun,
} from "../support/paddock.js";
import { freePort, startTestRedis } from "../support/redis.js";

const folder = scratch();
afterAll(folder.remove);

/** Values of a metric by its label set, from Prometheus' text format. */
function valuesOf(text: string, metric: string): Map<string, number> {
  const values = new Map<string, number>();
  for (const line of text.split("\n")) {
    const match = /^([a-z0-9_]+)(\{[^}]*\})? (\S+)/.exec(line);
    if (match?.[1] === metric) values.set(match[2] ?? "", Number(match[3]));
  }
  return values;
}

const model = { width: 96, depth: 3, heads: 3, patchSize: 7, channels: 1, layerScale: 0.1 };
const heads = { dino: { prototypes: 1024, bottleneck: 64, hidden: 128, layers: 3 } };
const changes = {
  model,
  heads,
  steps: 40,
  exchange: { dtype: "fp16" as const, initialScale: 256 },
};

/** The metrics, if workers are in them: for a moment after the run's end the server answers without any. */
async function scrape(port: number): Promise<string | undefined> {
  const text = await fetch(`http://127.0.0.1:${port}/metrics`).then(
    (response) => response.text(),
    () => "",
  );
  return valuesOf(text, "paddock_state_bytes").size > 0 ? text : undefined;
}

test("state is 16 bytes per parameter / W within 2 %, at most two units of each side are gathered, timers stay on time, Redis stays within its bound and sees no tensor in a job", async () => {
  const redis = await startTestRedis(folder.path);
  const metricsPort = await freePort();
  const workers = 2;
  const runDir = join(folder.path, "run");
  const spec = writeTinyRun(folder.path, changes);
  const started = startPaddock([
    "train",
    spec,
    "--run-dir",
    runDir,
    "--workers",
    String(workers),
    "--redis",
    redis.url,
    "--metrics-port",
    String(metricsPort),
  ]);
  const peak = { redis: 0, job: 0, tickets: 0 };
  let metrics = "";
  let watching = true;
  const watch = (async () => {
    while (watching) {
      const info = await redis.client.info("memory");
      peak.redis = Math.max(peak.redis, Number(/used_memory:(\d+)/.exec(info)?.[1] ?? 0));
      for (const key of await redis.client.keys("bull:*")) {
        if ((await redis.client.type(key)) !== "hash") continue;
        const data = await redis.client.hget(key, "data");
        if (!data) continue;
        peak.tickets++;
        peak.job = Math.max(peak.job, data.length);
        // A job is a reference: small JSON without arrays of numbers.
        expect(JSON.stringify(JSON.parse(data))).not.toMatch(/\[[-\d.e,\s]{200,}\]/);
      }
      metrics = (await scrape(metricsPort)) ?? metrics;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  })();
  try {
    await until("the first step", 90, () => readSteps(runDir).length > 0);
    const { code, stderr } = await started.done;
    expect(code, stderr).toBe(0);
  } finally {
    watching = false;
    await watch;
  }

  const parsed = parseRunSpec(tinySpec("x", changes));
  const layout = layoutOf(parsed);
  const states = [...valuesOf(metrics, "paddock_state_bytes").values()];
  expect(states).toHaveLength(workers);
  for (const bytes of states) {
    expect(Math.abs(bytes / ((16 * layout.parameters) / workers) - 1)).toBeLessThan(0.02);
  }

  const sizes = layout.units.map((unit) => unit.elements * 4).sort((a, b) => b - a);
  const twoUnits = (sizes[0] as number) + (sizes[1] as number);
  const gathered = [...valuesOf(metrics, "paddock_peak_gathered_bytes").values()];
  expect(gathered).toHaveLength(workers);
  for (const bytes of gathered) {
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThanOrEqual(2 * twoUnits);
  }

  const delays = [...valuesOf(metrics, "paddock_event_loop_delay_p99_seconds").values()];
  expect(delays).toHaveLength(workers);
  for (const seconds of delays) expect(seconds).toBeLessThan(0.05);

  const idleBytes = 2 * 2 ** 20;
  const bound = redisMemoryBound({
    parameters: layout.parameters,
    workers,
    dtypeBytes: 2,
    maxInFlightBytes: parsed.exchange.maxInFlightBytes,
  });
  expect(peak.tickets).toBeGreaterThan(0);
  expect(peak.job).toBeLessThan(2048);
  expect(peak.redis).toBeLessThan(bound + idleBytes);
  // And far below it in practice: published weights of two steps plus what is in flight, not one copy per step.
  expect(peak.redis).toBeLessThan(idleBytes + 40 * layout.parameters);
  await redis.stop();
});

test("with one worker no tensor touches Redis", async () => {
  const redis = await startTestRedis(folder.path);
  const spec = writeTinyRun(folder.path, { ...changes, steps: 5 });
  const before = (await redis.client.info("stats")).match(/total_net_input_bytes:(\d+)/)?.[1];
  const { code, stderr } = await paddock([
    "train",
    spec,
    "--run-dir",
    join(folder.path, "alone"),
    "--workers",
    "1",
    "--redis",
    redis.url,
  ]);
  expect(code, stderr).toBe(0);
  const after = (await redis.client.info("stats")).match(/total_net_input_bytes:(\d+)/)?.[1];
  const layout = layoutOf(parseRunSpec(tinySpec("x", changes)));
  // Segment jobs and BullMQ's scripts only: less than one copy of the weights.
  expect(Number(after) - Number(before)).toBeLessThan(2 * layout.parameters);
  await redis.stop();
});
