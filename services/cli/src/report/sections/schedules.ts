/** What the optimizer was told at each step. */
import { lineChart } from "../chart/line-chart.js";
import { section } from "../html.js";
import type { ReportData } from "../read-run.js";
import { seriesOf } from "./learning.js";

export function schedulesSection({ steps, spec }: ReportData): string {
  const charts = [
    { title: "Learning rate", series: [seriesOf(steps, "lr", (r) => r.lr)], fromZero: true },
    { title: "Weight decay", series: [seriesOf(steps, "weight decay", (r) => r.weightDecay)] },
    { title: "Teacher momentum", series: [seriesOf(steps, "momentum", (r) => r.momentum)] },
    { title: "Teacher temperature", series: [seriesOf(steps, "temp", (r) => r.teacherTemp)] },
    {
      title: "Workers",
      series: [seriesOf(steps, "workers", (r) => r.workers)],
      fromZero: true,
      whole: true,
    },
    ...(spec.exchange.dtype === "fp16"
      ? [{ title: "Loss scale", series: [seriesOf(steps, "scale", (r) => r.lossScale)] }]
      : []),
  ].map((chart) => lineChart({ ...chart, small: true }));
  const content = charts.join("");
  return section("Schedules", content === "" ? "" : `<div class="charts thirds">${content}</div>`);
}
