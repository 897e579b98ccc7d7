/** How fast, and where a step's time goes. */
import { type StepRecord, stepParts } from "@paddock/contract";
import { rate } from "../../display/format.js";
import { mean, median, type Point } from "../chart/buckets.js";
import { lineChart } from "../chart/line-chart.js";
import { section } from "../html.js";
import type { ReportData } from "../read-run.js";

export function speedSection({ steps, summary }: ReportData): string {
  if (steps.length < 2) return "";
  const chart = lineChart({
    title: "Images per second",
    fromZero: true,
    series: [{ name: "images/s", points: throughput(steps) }],
    ...(summary ? { latest: `${rate(summary.imagesPerSecond)} over the run` } : {}),
  });
  return section(
    "Speed",
    `<div class="charts">${chart}${partsTable(steps)}</div>`,
    "Wall time of a step by part, on its slowest worker, in milliseconds: mean over the run and share.",
  );
}

/** Images per second of windows of steps, by the median time of a step: pauses for evaluations and restarts do not count. */
function throughput(steps: readonly StepRecord[]): Point[] {
  const window = Math.max(2, Math.ceil(steps.length / 120));
  const points: Point[] = [];
  for (let start = 0; start + 1 < steps.length; start += window) {
    const part = steps.slice(start, start + window + 1);
    const gaps = part.slice(1).map((record, i) => record.unixMs - (part[i] as StepRecord).unixMs);
    const images = mean(part.map((record) => record.images));
    const ms = median(gaps);
    if (ms > 0) points.push({ x: (part[0] as StepRecord).step, y: (images * 1000) / ms });
  }
  return points;
}

function partsTable(steps: readonly StepRecord[]): string {
  const parts = stepParts
    .map((name) => ({ name, ms: mean(steps.map(({ seconds }) => (seconds[name] ?? 0) * 1000)) }))
    .filter(({ ms }) => ms > 0)
    .sort((a, b) => b.ms - a.ms);
  const total = parts.reduce((sum, { ms }) => sum + ms, 0);
  const rows = parts.map(({ name, ms }) => {
    const share = (ms / total) * 100;
    return `<tr><th>${name}</th><td>${ms.toFixed(ms < 10 ? 2 : 1)}</td><td>${share.toFixed(1)} %</td><td class="bar"><i style="width:${share.toFixed(1)}%"></i></td></tr>`;
  });
  return `<figure><figcaption><b>A step's time</b><span class="latest">${total.toFixed(1)} ms</span></figcaption><table class="parts">${rows.join("")}</table></figure>`;
}
