/** The head of the page: what was trained, how far, how well. */
import { layoutOf, type RunSpec, sizeOfModel } from "@paddock/contract";
import { count, duration, percent, points, rate } from "../../display/format.js";
import { escapeHtml } from "../html.js";
import type { ReportData } from "../read-run.js";

interface Tile {
  readonly name: string;
  readonly value: string;
  readonly detail: string;
}

export function factsHeader(run: ReportData): string {
  const tiles = tilesOf(run).map(
    ({ name, value, detail }) =>
      `<div class="tile"><span>${escapeHtml(name)}</span><b>${escapeHtml(value)}</b><small>${escapeHtml(detail)}</small></div>`,
  );
  return `<header><p class="brand">Paddock run report</p><h1>${escapeHtml(run.spec.name)}</h1><p class="lead">${escapeHtml(sentence(run))}</p><div class="tiles">${tiles.join("")}</div></header>`;
}

function sentence({ spec, steps }: ReportData): string {
  const { width, depth, heads } = sizeOfModel(spec.model);
  const done = steps.length >= spec.steps ? "" : ` Stopped at step ${count(steps.length)}.`;
  const global = spec.crops.global.size;
  return `A Vision Transformer (${width} wide, ${depth} deep, ${heads} heads, patch ${spec.model.patchSize}) pretrained without labels on ${spec.data.path}: ${count(spec.steps)} steps of ${spec.logicalRanks * spec.batchPerRank} images, 2 global crops of ${global}${localCrops(spec)} px.${done}`;
}

function localCrops({ crops }: RunSpec): string {
  return crops.localCount === 0
    ? ""
    : ` and ${crops.localCount} local crops of ${crops.local.size}`;
}

function tilesOf(run: ReportData): Tile[] {
  const { spec, summary, steps, generations } = run;
  const images = summary?.images ?? steps.reduce((sum, record) => sum + record.images, 0);
  const parameters = layoutOf(spec).parameters;
  const tiles: Tile[] = [
    ...knnTile(run),
    {
      name: "Steps",
      value: count(steps.length),
      detail: `of ${count(spec.steps)}${skipped(steps)}`,
    },
    { name: "Images", value: count(images), detail: `seed ${spec.seed}` },
    { name: "Parameters", value: count(parameters), detail: "student, with heads" },
  ];
  if (summary === undefined) return tiles;
  return [
    ...tiles,
    {
      name: "Images per second",
      value: rate(summary.imagesPerSecond),
      detail: `in ${duration(summary.wallSeconds)}`,
    },
    {
      name: "Workers",
      value: String(summary.workers),
      detail: `${summary.engine}, ${spec.logicalRanks} logical ranks, ${generations.length} generation${generations.length === 1 ? "" : "s"}`,
    },
  ];
}

function skipped(steps: ReportData["steps"]): string {
  const times = steps.filter((record) => record.skipped).length;
  return times === 0 ? "" : `, ${count(times)} without update (not finite)`;
}

function knnTile({ evaluations }: ReportData): Tile[] {
  const [first] = evaluations;
  const last = evaluations.at(-1);
  if (!first || !last || first === last) return [];
  return [
    {
      name: "k-NN accuracy",
      value: percent(last.knn),
      detail: `${points(first.knn, last.knn)} from ${percent(first.knn)}`,
    },
  ];
}
