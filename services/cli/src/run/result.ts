/** The last thing a finished run says. */
import { count, duration, loss, percent, points, rate } from "../display/format.js";

/** `summary.json`: what a run came to. Written by the coordinator. */
export interface Summary {
  readonly runId: string;
  readonly engine: string;
  readonly workers: number;
  readonly logicalRanks: number;
  readonly parameters: number;
  readonly steps: number;
  readonly images: number;
  readonly imagesPerSecond: number;
  readonly wallSeconds: number;
  /** Accuracies in [0, 1]; null without evaluation. */
  readonly knn: {
    readonly start: number | null;
    readonly end: number | null;
    readonly bank: number;
    readonly queries: number;
  } | null;
  readonly loss: { readonly first: number; readonly last: number };
  readonly checkpoint: string;
}

/** A few lines: what was trained, how fast, how well, and where to look. */
export function resultText(s: Summary, report: string): string {
  const lines = [
    `finished   ${count(s.steps)} steps, ${count(s.images)} images in ${duration(s.wallSeconds)} (${rate(s.imagesPerSecond)} images/s) on ${s.engine}, ${s.workers} workers`,
    ...knnLine(s.knn),
    `loss       ${loss(s.loss.first)} -> ${loss(s.loss.last)}`,
    `report     ${report}`,
  ];
  return `\n${lines.join("\n")}`;
}

function knnLine(knn: Summary["knn"]): string[] {
  if (knn === null || knn.start === null || knn.end === null) return [];
  const change = points(knn.start, knn.end);
  return [
    `k-NN       ${percent(knn.start)} -> ${percent(knn.end)} (${change}; bank ${count(knn.bank)}, queries ${count(knn.queries)})`,
  ];
}
