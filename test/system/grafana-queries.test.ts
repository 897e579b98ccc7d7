/** A live run, a real Prometheus that scrapes it, and every query of the dashboard. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "vitest";

const root = new URL("../..", import.meta.url).pathname;
const dashboard = join(root, "deploy/observability/grafana/dashboards/paddock.json");

interface Panel {
  readonly title: string;
  readonly targets: readonly { readonly expr: string }[];
}

let dir: string;
const children: ChildProcess[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "paddock-grafana-"));
});
afterAll(async () => {
  for (const child of children) {
    child.kill("SIGINT");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }
  await rm(dir, { recursive: true, force: true });
});

/** Starts a run that outlives the test; resolves with the address of its metrics. */
async function startRun(): Promise<string> {
  const child = spawn(
    process.execPath,
    [
      join(root, "services/cli/bin/paddock.mjs"),
      ...["train", join(root, "deploy/runs/smoke.yaml"), "--json"],
      ...["--run-dir", join(dir, "run"), "--steps", "100000"],
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  children.push(child);
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line) as { event: string; metricsAddress?: string };
    if (event.event !== "started") continue;
    child.stdout.resume();
    return event.metricsAddress ?? "";
  }
  throw new Error("the run ended before it started");
}

/** Starts Prometheus with the shipped configuration, its target and interval replaced; resolves with its address. */
async function startPrometheus(target: string): Promise<string> {
  const shipped = await readFile(join(root, "deploy/observability/prometheus.yml"), "utf8");
  const config = join(dir, "prometheus.yml");
  await writeFile(
    config,
    shipped
      .replace("coordinator:9464", target)
      .replace("scrape_interval: 5s", "scrape_interval: 1s"),
  );
  const address = `127.0.0.1:${await freePort()}`;
  const child = spawn(
    "prometheus",
    [
      `--config.file=${config}`,
      `--storage.tsdb.path=${join(dir, "tsdb")}`,
      `--web.listen-address=${address}`,
      "--log.level=error",
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  children.push(child);
  return address;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  return typeof address === "object" ? (address?.port ?? 0) : 0;
}

/** What Prometheus answers to a query now: the number of its series, or its error. */
async function ask(address: string, expr: string): Promise<number | string> {
  const url = `http://${address}/api/v1/query?${new URLSearchParams({ query: expr })}`;
  const response = await fetch(url).catch(() => undefined);
  if (!response) return "no answer";
  const body = (await response.json()) as { error?: string; data?: { result: unknown[] } };
  return body.error ?? body.data?.result.length ?? 0;
}

test("every query of the dashboard returns data from a live run", async ({ skip }) => {
  if (spawnSync("prometheus", ["--version"]).error) skip("prometheus is not on PATH");
  const { panels } = JSON.parse(await readFile(dashboard, "utf8")) as { panels: Panel[] };
  const waiting = new Map(
    panels.flatMap(({ title, targets }) => targets.map(({ expr }) => [expr, `${title}: ${expr}`])),
  );
  expect(waiting.size).toBeGreaterThan(20);

  const prometheus = await startPrometheus(await startRun());
  const answers = new Map<string, number | string>();
  const deadline = performance.now() + 120_000;
  while (waiting.size > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    for (const [expr, name] of waiting) {
      const answer = await ask(prometheus, expr);
      answers.set(name, answer);
      if (typeof answer === "number" && answer > 0) waiting.delete(expr);
    }
  }
  const without = [...waiting.values()].map((name) => `${name} -> ${answers.get(name)}`);
  expect(without).toEqual([]);
});
