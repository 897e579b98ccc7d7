/** Which worlds are explored: small fleets, short runs, few faults, all ways in which they can meet. */
import { parseRunSpec, type RunSpec } from "@paddock/contract";
import { type Bounds, type FaultKind } from "./model/world.js";

interface Run {
  readonly workers: number;
  readonly steps: number;
  readonly checkpointEvery: number;
  readonly redundancy: "none" | "shadow";
  readonly evaluateEvery?: number;
}

function specOf(run: Run): RunSpec {
  return parseRunSpec({
    steps: run.steps,
    logicalRanks: 6,
    batchPerRank: 2,
    model: { width: 24, depth: 1, heads: 1, patchSize: 4, channels: 1 },
    heads: { dino: { prototypes: 8, bottleneck: 4, hidden: 4, layers: 1 } },
    data: { kind: "idx", path: "/data" },
    crops: {
      global: { size: 16, scale: [0.3, 1] },
      local: { size: 8, scale: [0.1, 0.3] },
      mean: [0.5],
      std: [0.5],
    },
    monitor: { everySteps: 0 },
    exchange: { dtype: "fp32" },
    fleet: {
      workers: run.workers,
      segmentSteps: 1,
      leaseSeconds: 30,
      redundancy: run.redundancy,
    },
    checkpoint: { everySteps: run.checkpointEvery, keep: 2 },
    evaluation: { everySteps: run.evaluateEvery ?? 0 },
  });
}

const crashes: readonly FaultKind[] = ["worker-crash", "coordinator-crash"];
const all: readonly FaultKind[] = [...crashes, "cut", "pause", "failure", "checkpoint-failure", "leave"];

function bounds(
  name: string,
  run: Run,
  faults: number,
  kinds: readonly FaultKind[],
  options: { readonly respawn?: boolean; readonly maxStates?: number } = {},
): Bounds {
  return {
    name,
    spec: specOf(run),
    workers: run.workers,
    faults,
    kinds,
    respawn: options.respawn ?? true,
    maxStates: options.maxStates ?? 600_000,
  };
}

const two = { workers: 2, steps: 2, checkpointEvery: 9, redundancy: "none" } as const;

export const short: readonly Bounds[] = [
  bounds("no fault, 2 workers, 3 steps", { ...two, steps: 3, checkpointEvery: 2 }, 0, []),
  bounds("any fault, 1 worker", { ...two, workers: 1 }, 1, all),
  bounds("any fault, 2 workers", two, 1, all, { maxStates: 30_000 }),
];

export const full: readonly Bounds[] = [
  ...short.slice(0, 2),
  bounds("no fault, 3 workers", { ...two, workers: 3 }, 0, []),
  bounds("any fault, 2 workers", two, 1, all),
];
