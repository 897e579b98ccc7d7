import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRunSpec, type StepRecord, scalarsAt, stepParts } from "@paddock/contract";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { bucketed } from "./chart/buckets.js";
import { lineChart } from "./chart/line-chart.js";
import { linearScale, tickLabel } from "./chart/scale.js";
import { writeReport } from "./write-report.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "paddock-report-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const spec = parseRunSpec({
  name: "demo",
  steps: 50,
  batchPerRank: 8,
  data: { kind: "idx", path: "/data/<script>" },
  model: { width: 48, depth: 2, heads: 2, patchSize: 4, channels: 1 },
  crops: { global: { size: 16, scale: [0.3, 1] }, localCount: 0, mean: [0], std: [1] },
});

function stepRecord(step: number): StepRecord {
  const scalars = scalarsAt(spec, step);
  return {
    step,
    generation: 1,
    workers: 2,
    loss: 8 - step / 20,
    losses: { dinoLocal: 0, dinoGlobal: 5, koleo: 1, ibot: 2, gram: 0 },
    gradNorm: { backbone: 1, dino_head: 2 },
    lr: scalars.learningRate,
    weightDecay: scalars.weightDecay,
    momentum: scalars.momentum,
    teacherTemp: scalars.teacherTemperature,
    lossScale: 65536,
    skipped: false,
    images: 32,
    seconds: {
      ...Object.fromEntries(stepParts.map((part) => [part, 0.01])),
    } as StepRecord["seconds"],
    unixMs: 1_700_000_000_000 + step * 100,
  };
}

async function writeRun(steps: number): Promise<void> {
  await writeFile(join(dir, "spec.json"), JSON.stringify(spec));
  const lines = Array.from({ length: steps }, (_, step) => JSON.stringify(stepRecord(step)));
  await writeFile(join(dir, "steps.jsonl"), lines.map((line) => `${line}\n`).join(""));
}

async function page(): Promise<string> {
  return readFile(await writeReport(dir), "utf8");
}

test("the report of a whole run shows learning, pictures, speed, schedules and recipe, and asks nobody for anything", async () => {
  await writeRun(50);
  const evaluations = [0.5, 0.6].map((knn, i) => ({
    kind: "evaluation",
    step: i * 50,
    knn,
    bank: 64,
    queries: 32,
  }));
  await writeFile(
    join(dir, "ledger.jsonl"),
    [{ kind: "generation", workers: 2 }, ...evaluations]
      .map((r) => `${JSON.stringify(r)}\n`)
      .join(""),
  );
  const grey = { width: 2, height: 2, data: Buffer.from([0, 80, 160, 255]).toString("base64") };
  const visuals = [
    {
      label: "Boot & <b>",
      source: { ...grey, channels: 1 },
      pca: { width: 1, height: 1, data: Buffer.from([255, 0, 0]).toString("base64") },
      attention: [grey, grey],
    },
  ];
  await writeFile(join(dir, "visuals.json"), JSON.stringify({ images: visuals }));
  const html = await page();
  for (const title of [
    "Learning",
    "What the teacher sees",
    "Speed",
    "Schedules",
    "Effective recipe",
  ]) {
    expect(html).toContain(`<h2>${title}</h2>`);
  }
  expect(html).toContain("+10.0 points from 50.0 %");
  expect(html).toContain("Boot &amp; &lt;b&gt;");
  expect(html).not.toContain("<script");
  expect(html.match(/data:image\/png;base64/g)).toHaveLength(4);
  expect(html).not.toMatch(/(src|href)="(?!data:)/);
  expect(html).not.toContain("NaN");
});

test("a run that has hardly begun has a report too", async () => {
  await writeRun(0);
  expect(await page()).toContain("Stopped at step 0.");
  await writeRun(1);
  expect(await page()).not.toContain("NaN");
});

test("what is no run directory is refused", async () => {
  await expect(writeReport(dir)).rejects.toMatchObject({ code: "not-found" });
});

test("buckets keep the range, the mean and the order of a series, and are never more than asked for", () => {
  const points = fc.array(fc.double({ noNaN: true, min: -1e6, max: 1e6 }), { minLength: 1 });
  fc.assert(
    fc.property(points, fc.integer({ min: 1, max: 50 }), (ys, limit) => {
      const buckets = bucketed(
        ys.map((y, x) => ({ x, y })),
        limit,
      );
      expect(buckets.length).toBeLessThanOrEqual(limit);
      expect(Math.min(...buckets.map(({ low }) => low))).toBe(Math.min(...ys));
      expect(Math.max(...buckets.map(({ high }) => high))).toBe(Math.max(...ys));
      expect(buckets.every(({ x }, i) => i === 0 || x > (buckets[i - 1]?.x ?? 0))).toBe(true);
      for (const { y, low, high } of buckets) {
        expect(y).toBeGreaterThanOrEqual(low - 1e-6);
        expect(y).toBeLessThanOrEqual(high + 1e-6);
      }
    }),
  );
});

test("an axis has evenly spaced round ticks inside its range, whatever the data", () => {
  const numbers = fc.double({ noNaN: true, min: -1e9, max: 1e9 });
  fc.assert(
    fc.property(numbers, numbers, (a, b) => {
      const scale = linearScale({
        low: Math.min(a, b),
        high: Math.max(a, b),
        from: 200,
        to: 0,
        count: 5,
        round: true,
      });
      expect(scale.ticks.length).toBeGreaterThanOrEqual(2);
      expect(scale.ticks.length).toBeLessThanOrEqual(9);
      for (const tick of scale.ticks) {
        expect(scale.at(tick)).toBeGreaterThanOrEqual(-1e-6);
        expect(scale.at(tick)).toBeLessThanOrEqual(200 + 1e-6);
      }
    }),
  );
  expect([0, 500, 1000].map((t) => tickLabel(t, 500))).toEqual(["0", "500", "1000"]);
  expect([5e-4, 1e-3, 1.5e-3].map((t) => tickLabel(t, 5e-4))).toEqual(["5e-4", "1e-3", "1.5e-3"]);
  expect(tickLabel(65536, 20000)).toBe("66k");
});

test("a chart of nothing is nothing, and of one point a dot", () => {
  expect(lineChart({ title: "empty", series: [{ name: "a", points: [] }] })).toBe("");
  const one = lineChart({ title: "one", series: [{ name: "a", points: [{ x: 3, y: 7 }] }] });
  expect(one).toContain("<circle");
  expect(one).not.toContain("NaN");
});
