/** The run that faults are thrown at: complete, and so small that a step takes some tens of milliseconds. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RunSpecInput } from "@paddock/contract";
import { describeEngines } from "@paddock/engine";
import { writeIdxImages } from "../support/images.js";
import { tinySpec } from "../support/paddock.js";

export interface ChaosRun {
  readonly steps: number;
  /** Workers that the coordinator wants. */
  readonly workers: number;
  /** Steps between checkpoints and between evaluations. */
  readonly checkpointSteps: number;
  readonly evaluationSteps: number;
  readonly redundancy: "none" | "shadow";
}

export const leaseSeconds = 2;
/** Logical ranks: the most workers that a run can have. */
export const mostWorkers = 8;

/** torch where there is one: it starts as fast as wasm and computes faster. */
export function engineName(): "torch" | "wasm" {
  return describeEngines().find(({ name }) => name === "torch")?.available ? "torch" : "wasm";
}

/** Writes spec and images below `folder`; returns the spec's path. */
export function writeChaosSpec(folder: string, run: ChaosRun): string {
  mkdirSync(folder, { recursive: true });
  const images = join(folder, "images");
  if (!existsSync(images)) writeIdxImages(images, 96, 16);
  const path = join(folder, "spec.json");
  writeFileSync(path, JSON.stringify(chaosSpec(images, run), null, 2));
  return path;
}

function chaosSpec(images: string, run: ChaosRun): RunSpecInput {
  const { data, crops, ...tiny } = tinySpec(images);
  return {
    ...tiny,
    name: "chaos",
    data,
    crops: { ...crops, localCount: 1 },
    steps: run.steps,
    logicalRanks: mostWorkers,
    // softmax: its centres are state too
    loss: { centering: "softmax" },
    exchange: { dtype: "fp16", initialScale: 256, scaleGrowthSteps: 20, timeoutSeconds: 3 },
    engine: { name: engineName() },
    fleet: { workers: run.workers, segmentSteps: 20, leaseSeconds, redundancy: run.redundancy },
    checkpoint: { everySteps: run.checkpointSteps, keep: 3 },
    evaluation: {
      everySteps: run.evaluationSteps,
      bank: 16,
      queries: 8,
      finalBank: 16,
      finalQueries: 8,
    },
  };
}
