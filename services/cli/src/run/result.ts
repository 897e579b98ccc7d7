/** The last thing a finished run says. */
import type { Summary } from "@paddock/coordinator";
import { count, duration, loss, percent, points, rate } from "../display/format.js";

/** A few lines: what was trained, how fast, how well, and where to look. */
export function resultText(s: Summary, report: string): string {
  const lines = [
    `finished   ${count(s.steps)} steps, ${count(s.images)} images in ${duration(s.wallSeconds)} (${rate(s.imagesPerSecond)} images/s) on ${s.engine}, ${s.workers} workers`,
    ...knnLine(s.knn),
    ...lossLine(s.loss),
    `report     ${report}`,
  ];
  return `\n${lines.join("\n")}`;
}

function knnLine(knn: Summary["knn"]): string[] {
  if (knn.start === null || knn.end === null) return [];
  const change = points(knn.start, knn.end);
  return [
    `k-NN       ${percent(knn.start)} -> ${percent(knn.end)} (${change}; bank ${count(knn.bank)}, queries ${count(knn.queries)})`,
  ];
}

function lossLine({ first, last }: Summary["loss"]): string[] {
  return first === null || last === null ? [] : [`loss       ${loss(first)} -> ${loss(last)}`];
}
