/** Did it learn: k-NN accuracy, losses, gradient norms. */
import type { StepRecord } from "@paddock/contract";
import { count, loss, percent } from "../../display/format.js";
import type { Point } from "../chart/buckets.js";
import { lineChart, type Series } from "../chart/line-chart.js";
import { escapeHtml, section } from "../html.js";
import type { ReportData } from "../read-run.js";

/** A number of each step, as a series. Steps where it is missing are left out. */
export function seriesOf(
  steps: readonly StepRecord[],
  name: string,
  pick: (record: StepRecord) => number | undefined,
): Series {
  const points = steps.flatMap((record): Point[] => {
    const y = pick(record);
    return y === undefined ? [] : [{ x: record.step, y }];
  });
  return { name, points };
}

export function learningSection(run: ReportData): string {
  const charts = [
    knnChart(run),
    lossChart(run),
    partsChart(run),
    outputsChart(run),
    rankChart(run),
    normChart(run),
  ].join("");
  return section(
    "Learning",
    charts === "" ? "" : `${warnings(run)}<div class="charts">${charts}</div>`,
    knnNote(run),
  );
}

function warnings({ alerts, incidents }: ReportData): string {
  return [
    ...alerts.map(({ message }) => `Warning: ${message}`),
    ...incidents.map((incident) => `Guard: ${incident}`),
  ]
    .map((text) => `<p class="warning">${escapeHtml(text)}.</p>`)
    .join("");
}

function knnNote({ spec, evaluations }: ReportData): string {
  if (evaluations.length === 0) return "";
  const { k, temperature } = spec.evaluation;
  return `Weighted k-NN of the teacher's features (k = ${k}, temperature ${temperature}, cosine) on held-out labelled images. Points of one line use the same images. In other charts a line is the mean of neighbouring steps, the band their range.`;
}

/** One line per number of images: the two ends of a run usually use all, the points between fewer. */
function knnChart({ evaluations }: ReportData): string {
  const [first] = evaluations;
  const last = evaluations.at(-1);
  if (!first || !last) return "";
  const lines = new Map<string, Point[]>();
  for (const { step, knn, bank, queries } of evaluations) {
    const name = `${count(queries)} queries, bank of ${count(bank)}`;
    lines.set(name, [...(lines.get(name) ?? []), { x: step, y: knn * 100 }]);
  }
  return lineChart({
    title: "k-NN accuracy, %",
    latest: percent(last.knn),
    dots: true,
    baseline: { y: first.knn * 100, label: `step ${first.step}: ${percent(first.knn)}` },
    series: [...lines].map(([name, points]) => ({ name, points })),
  });
}

function lossChart({ steps }: ReportData): string {
  return lineChart({
    title: "Loss, nats",
    series: [seriesOf(steps, "total", (record) => record.loss)],
    ...latestLoss(steps),
  });
}

function latestLoss(steps: readonly StepRecord[]): { latest?: string } {
  const last = steps.at(-1);
  return last ? { latest: loss(last.loss) } : {};
}

function partsChart({ steps }: ReportData): string {
  const names = ["dinoGlobal", "dinoLocal", "ibot", "koleo", "gram"] as const;
  const used = names.filter((name) => steps.some((record) => (record.losses[name] ?? 0) !== 0));
  return lineChart({
    title: "Loss by part, nats",
    series: used.map((name) => seriesOf(steps, name, (record) => record.losses[name])),
  });
}

function outputsChart({ steps, spec }: ReportData): string {
  const uniform = Math.log(spec.heads.dino.prototypes);
  return lineChart({
    title: "Teacher's outputs, nats",
    fromZero: true,
    baseline: { y: uniform, label: `ln K = ${uniform.toFixed(2)}` },
    series: [
      seriesOf(steps, "entropy", ({ monitor }) => monitor?.teacherEntropy),
      seriesOf(steps, "KL to uniform", ({ monitor }) => monitor?.klToUniform),
    ],
  });
}

function rankChart({ steps, spec }: ReportData): string {
  return lineChart({
    title: `Effective rank of the features of ${2 * spec.batchPerRank} crops`,
    fromZero: true,
    series: [seriesOf(steps, "rank", ({ monitor }) => monitor?.effectiveRank)],
  });
}

function normChart({ steps }: ReportData): string {
  const names = [...new Set(steps.flatMap((record) => Object.keys(record.gradNorm)))].slice(0, 6);
  return lineChart({
    title: "Gradient norm before clipping",
    fromZero: true,
    series: names.map((name) => seriesOf(steps, name, (record) => record.gradNorm[name])),
  });
}
