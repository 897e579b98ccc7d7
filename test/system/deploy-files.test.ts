/** What `deploy/` ships, as far as it can be checked without Docker and Grafana. */
import { spawnSync } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { loadPlan } from "@paddock/cli";
import { expect, test } from "vitest";
import { parse } from "yaml";

const deploy = new URL("../../deploy", import.meta.url).pathname;

test("every run in deploy/runs is a valid spec", async () => {
  const files = (await readdir(join(deploy, "runs"))).filter((name) => name.endsWith(".yaml"));
  expect(files.length).toBeGreaterThan(0);
  for (const file of files) {
    const plan = await loadPlan(join(deploy, "runs", file), []);
    expect(`${"spec" in plan ? plan.spec.name : plan.name}.yaml`).toBe(file);
  }
});

test("compose builds both images and gives coordinator and workers one volume for the run", async () => {
  const text = await readFile(join(deploy, "compose.yaml"), "utf8");
  const { services } = parse(text, { merge: true }) as {
    services: Record<string, { build?: { dockerfile: string }; volumes?: string[] }>;
  };
  for (const name of ["coordinator", "worker-0", "worker-1"]) {
    expect(services[name]?.volumes).toContain("runs:/runs");
    const dockerfile = await readFile(
      join(deploy, "..", services[name]?.build?.dockerfile ?? ""),
      "utf8",
    );
    expect(dockerfile).toContain("ENTRYPOINT");
  }
});

test("prometheus accepts its configuration", ({ skip }) => {
  const check = spawnSync("promtool", [
    ...["check", "config", join(deploy, "observability/prometheus.yml")],
  ]);
  if (check.error) skip("promtool is not on PATH");
  expect(check.stderr.toString()).toBe("");
  expect(check.status).toBe(0);
});

test("panels of the dashboard do not overlap and have different ids", async () => {
  const file = join(deploy, "observability/grafana/dashboards/paddock.json");
  const { panels } = JSON.parse(await readFile(file, "utf8")) as {
    panels: { id: number; gridPos: { x: number; y: number; w: number; h: number } }[];
  };
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_, i) => `${x + (i % w)},${y + Math.floor(i / w)}`),
  );
  expect(new Set(cells).size).toBe(cells.length);
  expect(panels.every(({ gridPos }) => gridPos.x + gridPos.w <= 24)).toBe(true);
});
