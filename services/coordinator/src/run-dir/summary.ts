/** `summary.json`: what a run came to, for scripts. */
import type { StepRecord } from "@paddock/contract";
import { globalBatch, type RunState } from "../run/state.js";

export interface Summary {
  readonly runId: string;
  /** Engines of the last workers of this coordinator's life, joined by commas if they differ. */
  readonly engine: string;
  /** Workers of the last generation. */
  readonly workers: number;
  readonly logicalRanks: number;
  readonly parameters: number;
  /** Committed steps. */
  readonly steps: number;
  /** Images in them. */
  readonly images: number;
  /** From the first assignment to the last commit of this coordinator's life; start-up and the end are not in it. */
  readonly imagesPerSecond: number;
  /** Of this coordinator's life. */
  readonly wallSeconds: number;
  /** Accuracy in [0, 1] at step 0 and at the last evaluation, and the images of that one; null where there was none. */
  readonly knn: {
    readonly start: number | null;
    readonly end: number | null;
    readonly bank: number;
    readonly queries: number;
  };
  /** Total loss of the first and the last committed step; null before the first. */
  readonly loss: { readonly first: number | null; readonly last: number | null };
  /** Folder of the newest durable checkpoint, relative to the run directory, or null. */
  readonly checkpoint: string | null;
}

/** @param ends first and last line of steps.jsonl */
export function summaryOf(
  state: RunState,
  ends: { readonly first: StepRecord; readonly last: StepRecord } | undefined,
  wallSeconds: number,
): Summary {
  const { durable, counters, firstStartMs, lastCommitMs } = state;
  const { spec, evaluations } = durable;
  const trainedSeconds =
    firstStartMs !== null && lastCommitMs !== null ? (lastCommitMs - firstStartMs) / 1000 : 0;
  const last = evaluations.at(-1);
  const checkpoint = durable.checkpoints.at(-1);
  return {
    runId: durable.runId,
    engine: state.engine,
    workers: durable.workers,
    logicalRanks: spec.logicalRanks,
    parameters: state.layout.parameters,
    steps: durable.next,
    images: durable.next * globalBatch(spec),
    imagesPerSecond: trainedSeconds > 0 ? counters.images / trainedSeconds : 0,
    wallSeconds,
    knn: {
      start: evaluations.find(({ step }) => step === 0)?.knn ?? null,
      end: last && last.step > 0 ? last.knn : null,
      bank: last?.bank ?? 0,
      queries: last?.queries ?? 0,
    },
    loss: { first: ends?.first.loss ?? null, last: ends?.last.loss ?? null },
    checkpoint: checkpoint ? `checkpoints/${checkpoint.step}` : null,
  };
}
