/** A plan for people. */
import { stateKinds } from "@paddock/contract";
import { bytes, count } from "../display/format.js";
import { type PlannedWorker, type RunPlan, ranksText } from "./plan.js";

export function planText(plan: RunPlan): string {
  return `${[
    `${plan.name}: ${runLine(plan)}`,
    fleetLine(plan),
    "",
    "memory of each worker",
    ...table([memoryHeader, ...plan.workers.map((worker) => memoryRow(worker, plan))]),
    "",
    "exchange of each worker, per step",
    ...table([trafficHeader, ...plan.workers.map((worker) => trafficRow(worker, plan))]),
    "",
    ...shadowLines(plan),
    `checkpoint: ${bytes(plan.checkpointBytes)}; ${bytes(plan.diskBytes)} ${plan.storage === null ? "on disk" : `in ${plan.storage}`} with those that are kept and the one being written`,
    ...(plan.redisBytes === 0 ? [] : [`Redis: at most ${bytes(plan.redisBytes)}`]),
    ...plan.warnings.map((text) => `warning: ${text}`),
    ...plan.notEstimated.map((text) => `not estimated: ${text}`),
  ].join("\n")}\n`;
}

function runLine(plan: RunPlan): string {
  const { steps, globalBatch, samples, images, epochs, segments, checkpoints, evaluations } = plan;
  const seen =
    images === null || epochs === null
      ? "; --images N gives epochs"
      : `, ${epochs.toFixed(epochs < 10 ? 2 : 1)} epochs of ${count(images)}`;
  return `${count(steps)} steps of ${count(globalBatch)} images (${count(samples)} samples${seen}), ${plural(segments, "segment")}, ${plural(checkpoints, "checkpoint")}, ${plural(evaluations, "evaluation")}`;
}

function fleetLine(plan: RunPlan): string {
  const { parameters, logicalRanks, workers, spares, exchange, dtype, redundancy } = plan;
  const more = spares === 0 ? "" : ` and ${plural(spares, "spare")}`;
  return `${count(parameters)} parameters with heads; ${plural(logicalRanks, "logical rank")} on ${plural(workers.length, "worker")}${more}; exchange ${exchange}, ${dtype}; redundancy ${redundancy}`;
}

const memoryHeader = [
  ...["worker", "ranks", "parameters", ...stateKinds, "shadow"],
  ...["gathered", "gradients", "published", "checkpoint", "sum"],
];

function memoryRow(worker: PlannedWorker, { redundancy }: RunPlan): string[] {
  const { stateBytes, gatheredBytes, gradientBytes, publishedBytes, checkpointBytes } = worker;
  return [
    String(worker.worker),
    ranksText(worker.ranks),
    count(worker.shardElements),
    ...stateKinds.map((kind) => bytes(stateBytes[kind])),
    bytes(redundancy === "shadow" ? worker.shadowBytes : 0),
    ...[gatheredBytes, gradientBytes, publishedBytes, checkpointBytes].map(bytes),
    bytes(worker.memoryBytes),
  ];
}

const trafficHeader = [
  ...["worker", "weights sent", "gradients sent", "shadow sent"],
  ...["all sent", "all received"],
];

function trafficRow(
  { worker, traffic, sentBytes, receivedBytes }: PlannedWorker,
  { redundancy }: RunPlan,
): string[] {
  return [
    String(worker),
    ...[traffic.weights, traffic.gradients].map((part) => bytes(part.sentBytes)),
    bytes(redundancy === "shadow" ? traffic.shadow.sentBytes : 0),
    bytes(sentBytes),
    bytes(receivedBytes),
  ];
}

/** What shadows cost, where they are not kept. */
function shadowLines({ redundancy, workers }: RunPlan): string[] {
  if (redundancy === "shadow" || workers.length === 1) return [];
  const most = (read: (worker: PlannedWorker) => number) => bytes(Math.max(...workers.map(read)));
  return [
    `fleet.redundancy=shadow would cost each worker up to ${most(({ shadowBytes }) => shadowBytes)} more memory and ${most(({ traffic }) => traffic.shadow.sentBytes)} more to send per step`,
  ];
}

/** Columns side by side: the first to the left, the others to the right. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, at) =>
    Math.max(...rows.map((row) => row[at]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
      .join("  "),
  );
}

function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}
