/** What a run will need, from its spec alone: ranks, memory and traffic of each worker, steps, disk. Pure. */
import {
  frozenUnitsOf,
  layoutOf,
  type Range,
  type RunSpec,
  sizeOf,
  stateKinds,
} from "@paddock/contract";
import { planRun } from "@paddock/coordinator";
import { bytesPerValue, type Footprint, footprintOf, redisMemoryBound } from "@paddock/worker";

export interface PlannedWorker extends Footprint {
  readonly worker: number;
  /** Logical ranks when they are dealt evenly, as at the start. */
  readonly ranks: Range;
  /** All of the above that it holds at once: without activations and the other things of `notEstimated`. */
  readonly memoryBytes: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

export interface RunPlan {
  readonly name: string;
  readonly steps: number;
  /** Images of one step, and of all steps. */
  readonly globalBatch: number;
  readonly samples: number;
  /** Training images, if they are known, and how often each is seen. */
  readonly images: number | null;
  readonly epochs: number | null;
  readonly segments: number;
  readonly checkpoints: number;
  readonly evaluations: number;
  /** Of the student, heads included. */
  readonly parameters: number;
  readonly logicalRanks: number;
  readonly exchange: RunSpec["exchange"]["kind"];
  readonly dtype: RunSpec["exchange"]["dtype"];
  readonly redundancy: RunSpec["fleet"]["redundancy"];
  readonly workers: readonly PlannedWorker[];
  /** Workers that were asked for and have no logical rank. */
  readonly spares: number;
  /** One checkpoint, and as many as are stored at once: those kept and the one being written. */
  readonly checkpointBytes: number;
  readonly diskBytes: number;
  /** `checkpoint.storage`: null is the run directory. */
  readonly storage: string | null;
  /** By which Redis' memory grows at most. */
  readonly redisBytes: number;
  readonly warnings: readonly string[];
  readonly notEstimated: readonly string[];
}

const notEstimated = [
  "memory: activations and temporaries of the engine (batchPerRank, crops and engine.activations decide), its library, and Node with the images of its data threads",
  "memory while members change: up to twice the state, old and new cut",
  "traffic: sums of Sinkhorn, centres and KoLeo; what TCP, tickets and evaluations add",
  "time",
];

/**
 * @param fleet.workers as asked for; more than the logical ranks are spares
 * @param fleet.images training images, if they are known
 */
export function planOf(
  spec: RunSpec,
  fleet: { readonly workers: number; readonly images: number | null },
): RunPlan {
  const { logicalRanks, steps } = spec;
  const busy = Math.min(fleet.workers, logicalRanks);
  const { workers: shares, segments, layout } = planRun(spec, { workers: busy, startStep: 0 });
  const workers = shares.map(({ worker, ranks }) => plannedWorker(spec, worker, ranks, busy));
  const globalBatch = logicalRanks * spec.batchPerRank;
  const checkpointBytes = workers.reduce((sum, worker) => sum + worker.checkpointBytes, 0);
  return {
    name: spec.name,
    steps,
    globalBatch,
    samples: steps * globalBatch,
    images: fleet.images,
    epochs: fleet.images === null ? null : (steps * globalBatch) / fleet.images,
    segments: segments.length,
    checkpoints: Math.ceil(steps / spec.checkpoint.everySteps),
    evaluations: evaluationsOf(spec),
    parameters: layout.parameters,
    logicalRanks,
    exchange: spec.exchange.kind,
    dtype: spec.exchange.dtype,
    redundancy: spec.fleet.redundancy,
    workers,
    spares: fleet.workers - busy,
    checkpointBytes,
    diskBytes: checkpointBytes * (spec.checkpoint.keep + 1),
    storage: spec.checkpoint.storage,
    redisBytes: busy === 1 ? 0 : redisBytesOf(spec, busy),
    warnings: warningsOf(spec, fleet.workers),
    notEstimated,
  };
}

/** At the start, every so often, and at the end; none without labelled images that were not trained on. */
function evaluationsOf({ steps, evaluation, data }: RunSpec): number {
  const hasLabels = data.kind === "idx" || data.validationPath !== null;
  if (evaluation.everySteps === 0 || !hasLabels) return 0;
  return 1 + Math.ceil(steps / evaluation.everySteps);
}

function plannedWorker(
  spec: RunSpec,
  worker: number,
  ranks: Range,
  workers: number,
): PlannedWorker {
  const footprint = footprintOf(spec, worker, workers);
  const { stateBytes, shadowBytes, traffic } = footprint;
  const isShadowed = spec.fleet.redundancy === "shadow";
  const parts = [traffic.weights, traffic.gradients, ...(isShadowed ? [traffic.shadow] : [])];
  return {
    worker,
    ranks,
    ...footprint,
    memoryBytes:
      stateKinds.reduce((sum, kind) => sum + stateBytes[kind], 0) +
      (isShadowed ? shadowBytes : 0) +
      footprint.gatheredBytes +
      footprint.gradientBytes +
      footprint.publishedBytes +
      footprint.checkpointBytes,
    sentBytes: parts.reduce((sum, { sentBytes }) => sum + sentBytes, 0),
    receivedBytes: parts.reduce((sum, { receivedBytes }) => sum + receivedBytes, 0),
  };
}

/** Collectives leave Redis the weights of evaluations, and all of it where a worker has none. */
function redisBytesOf(spec: RunSpec, workers: number): number {
  const elementsOf = (units: readonly { readonly elements: number }[]): number =>
    units.reduce((sum, { elements }) => sum + elements, 0);
  return redisMemoryBound({
    parameters: elementsOf(layoutOf(spec).units),
    frozen: elementsOf(frozenUnitsOf(spec)),
    workers,
    dtypeBytes: bytesPerValue(spec),
    maxInFlightBytes: spec.exchange.maxInFlightBytes,
  });
}

function warningsOf(spec: RunSpec, asked: number): string[] {
  const { logicalRanks } = spec;
  const warnings: string[] = [];
  if (asked > logicalRanks) {
    warnings.push(
      `${asked} workers for ${logicalRanks} logical ranks: ${asked - logicalRanks} have nothing to compute and wait as spares; start ${logicalRanks}, or raise logicalRanks (which changes the recipe)`,
    );
  }
  const workers = Math.min(asked, logicalRanks);
  const most = Math.ceil(logicalRanks / workers);
  const idle = 1 - logicalRanks / (workers * most);
  if (idle > 0) {
    warnings.push(
      `${workers} workers do not divide ${logicalRanks} logical ranks: equally fast ones are idle for ${(100 * idle).toFixed(0)} % of the computing, while those with ${most} ranks finish; ${divisorsNear(logicalRanks, workers)} workers are not`,
    );
  }
  if (spec.fleet.redundancy === "shadow" && asked === 1) {
    warnings.push("fleet.redundancy=shadow: with one worker there is nobody to keep a copy");
  }
  if (spec.init?.load === "resume") {
    warnings.push(
      "init.load=resume: the run begins at its checkpoint's step; steps, samples and segments here are counted from 0",
    );
  }
  return warnings;
}

/** The next smaller and larger numbers of workers that divide the ranks: "2 or 4". */
function divisorsNear(logicalRanks: number, workers: number): string {
  const divisors = Array.from({ length: logicalRanks }, (_, i) => i + 1).filter(
    (count) => logicalRanks % count === 0,
  );
  const below = divisors.findLast((count) => count < workers);
  const above = divisors.find((count) => count > workers);
  return [below, above].filter((count) => count !== undefined).join(" or ");
}

/** "0-1 (2)". */
export function ranksText(ranks: Range): string {
  const { start, end } = ranks;
  return `${sizeOf(ranks) === 1 ? start : `${start}-${end - 1}`} (${sizeOf(ranks)})`;
}
