import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PaddockError } from "@paddock/contract";
import { Gauge } from "prom-client";
import { expect, test, vi } from "vitest";
import { sleep, withDeadline } from "./deadline.js";
import { monitorEventLoop } from "./event-loop.js";
import { startHttpServer } from "./http-server.js";
import { createLogger } from "./logger.js";
import { createMetrics } from "./metrics.js";
import { createQueue } from "./queue.js";
import { listenForShutdown } from "./shutdown.js";

test("work within its deadline returns its value, work beyond it fails and is told to stop", async () => {
  const deadline = { timeoutMs: 20, what: "a peer", code: "exchange-timeout" } as const;
  expect(await withDeadline(deadline, async () => 7)).toBe(7);
  let told: unknown;
  const work = (signal: AbortSignal) =>
    new Promise<void>(() => {
      signal.addEventListener("abort", () => {
        told = signal.reason;
      });
    });
  await expect(withDeadline(deadline, work)).rejects.toMatchObject({
    code: "exchange-timeout",
    message: "waited 20 ms for a peer; expected it within that time",
  });
  expect(told).toBeInstanceOf(PaddockError);
});

test("an outer signal ends a wait with its reason", async () => {
  const controller = new AbortController();
  const wait = sleep(60_000, controller.signal);
  controller.abort(new Error("drained"));
  await expect(wait).rejects.toThrow("drained");
  await expect(sleep(1, controller.signal)).rejects.toThrow("drained");
});

test("a queue hands out values in order, ends after the last, and refuses to grow without bound", async () => {
  const queue = createQueue<number>(3);
  for (const value of [1, 2, 3]) expect(queue.push(value)).toBe(true);
  expect(() => queue.push(4)).toThrow("expected at most 3 messages");
  queue.end();
  expect(queue.push(5)).toBe(false);
  const seen: number[] = [];
  for await (const value of queue) seen.push(value);
  expect(seen).toEqual([1, 2, 3]);
});

test("a queue whose reader left takes no more", async () => {
  const queue = createQueue<number>(3);
  queue.push(1);
  for await (const _ of queue) break;
  expect(queue.push(2)).toBe(false);
  expect(queue.length).toBe(0);
});

test("a blocked event loop shows in the 99th percentile", async () => {
  const monitor = monitorEventLoop();
  await sleep(50);
  const end = performance.now() + 200;
  while (performance.now() < end);
  await sleep(50);
  expect(monitor.p99Ms()).toBeGreaterThan(100);
  monitor.close();
});

test("the first signal asks, the second ends", () => {
  const now = vi.fn();
  const shutdown = listenForShutdown(now);
  process.emit("SIGTERM", "SIGTERM");
  expect(shutdown.signal.reason).toBe("SIGTERM");
  expect(now).not.toHaveBeenCalled();
  process.emit("SIGINT", "SIGINT");
  expect(now).toHaveBeenCalledWith(130);
  shutdown.close();
  expect(process.listenerCount("SIGTERM")).toBe(0);
});

test("the logger appends one JSON object per line to its file", async () => {
  const folder = await mkdtemp(join(tmpdir(), "paddock-log-"));
  const file = join(folder, "logs", "a.log");
  const log = createLogger({ name: "test", level: "info", file });
  log.debug("unseen");
  log.info({ step: 3 }, "segment committed");
  const line = JSON.parse(await readFile(file, "utf8"));
  expect(line).toMatchObject({ name: "test", step: 3, msg: "segment committed" });
  await rm(folder, { recursive: true });
});

test("a log without room on its disk ends nothing", async () => {
  const log = createLogger({ name: "test", level: "info", file: "/dev/full" });
  log.info("no room for this");
  await new Promise((resolve) => setImmediate(resolve));
  log.info("nor for this");
});

test("metrics, health and status are served, and a used port is a clear error", async () => {
  const registry = createMetrics({ role: "test" });
  const gauge = new Gauge({ name: "paddock_step", help: "Step.", registers: [registry] });
  let unhealthy: string | undefined;
  const server = await startHttpServer({
    port: 0,
    registry,
    status: () => ({ step: 5 }),
    unhealthy: () => unhealthy,
    beforeScrape: () => gauge.set(5),
  });
  const get = async (path: string) => {
    const response = await fetch(`http://${server.address}${path}`);
    return { status: response.status, text: await response.text() };
  };
  const metrics = await get("/metrics");
  expect(metrics.text).toContain('paddock_step{role="test"} 5');
  expect(metrics.text).not.toMatch(/nodejs_active_\w+_total/);
  expect(await get("/healthz")).toEqual({ status: 200, text: "ok\n" });
  unhealthy = "no redis";
  expect(await get("/healthz")).toEqual({ status: 503, text: "no redis\n" });
  expect(await get("/status?x=1")).toEqual({ status: 200, text: '{"step":5}\n' });
  expect((await get("/nothing")).status).toBe(404);
  const port = Number(server.address.split(":")[1]);
  const second = startHttpServer({ port, registry, status: () => null });
  await expect(second).rejects.toMatchObject({ code: "port-in-use" });
  await server.close();
});
