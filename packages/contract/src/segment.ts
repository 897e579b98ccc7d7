/** Values that coordinator and workers agree on: segments, step results, commits, ledger records, manifests. */
import type { DataWindow } from "./data-windows.js";
import type { RankCuts } from "./shards.js";

/** The job of one worker for the steps [start, end): what a BullMQ segment job carries. */
export interface SegmentJob {
  readonly runId: string;
  readonly generation: number;
  /** This worker's index in [0, workers). */
  readonly worker: number;
  readonly workers: number;
  readonly start: number;
  readonly end: number;
}

/** A submodule's gradient norms before clipping. */
export type GradNorms = Readonly<Record<string, number>>;

/** The losses of a step, means over logical ranks summed in tree order, in nats. */
export interface Losses {
  /** What is optimised. */
  readonly total: number;
  readonly dinoLocal: number;
  readonly dinoGlobal: number;
  readonly koleo: number;
  readonly ibot: number;
  /** 0 without a Gram loss; absent in records of older versions. */
  readonly gram: number;
}

/** Wall seconds of one step by part, the slowest worker's. */
export const stepParts = [
  "data",
  "gather",
  "teacher",
  "student",
  "loss",
  "backward",
  "reduce",
  "update",
  "commit",
  "wait",
] as const;
export type StepPart = (typeof stepParts)[number];
export type StepSeconds = Readonly<Record<StepPart, number>>;

/** Signs of collapse of the teacher, means over logical ranks (packages/model: RankMonitor). */
export interface Monitor {
  /** Mean entropy of the teacher's outputs for global crops, in nats; ln K: uniform. */
  readonly teacherEntropy: number;
  /** KL of a rank's mean output to uniform, in nats; ln K: one prototype has everything. */
  readonly klToUniform: number;
  /** Standard deviation of the unit features over images, times sqrt(width); 0: all alike, 1: all directions alike. */
  readonly featureStd: number;
  /** exp of the entropy of the features' normalised singular values, from 1 to at most the crops of a rank. */
  readonly effectiveRank: number;
}

/** How a run can collapse. */
export const collapseKinds = ["uniform", "single-prototype", "constant-features"] as const;
export type CollapseKind = (typeof collapseKinds)[number];

/** Why an update is skipped: fp16 overflowed at a scale above 1, which is normal and halves it; or a loss, or a gradient, is not finite. */
export const skipReasons = ["overflow", "loss", "gradient"] as const;
export type SkipReason = (typeof skipReasons)[number];

/** Where a value that is not finite was seen first. */
export interface Offender {
  readonly reason: SkipReason;
  /** E.g. "loss koleo", "sum koleo" (of vectors over ranks), or a parameter's name: its gradient. */
  readonly tensor: string;
  /** Logical rank whose own value it is; null: every rank's was finite, their sum is not. */
  readonly rank: number | null;
  /** Worker that had the rank: its index and name. Says where to look, no more: another number of workers changes it. */
  readonly worker: number | null;
  readonly workerName: string;
  /** The rank's samples in this step: ids in the data set. */
  readonly samples: readonly number[];
}

/** What guards look for. */
export type GuardCause = "non-finite" | "spike";

/** The run goes back. */
export interface Rollback {
  /** The last step whose commit made it do so. */
  readonly step: number;
  /** Where it goes on: a durable checkpoint, or where the run began. */
  readonly toStep: number;
  /** Steps whose data, as they used it until now, is left out from now on; null: none. */
  readonly skip: DataWindow | null;
  readonly cause: GuardCause;
  /** For people. */
  readonly reason: string;
  /** What was not finite first in that step; null for spikes. */
  readonly offender: Offender | null;
  readonly unixMs: number;
}

/** One line of steps.jsonl: a committed step. Numbers in full precision. */
export interface StepRecord {
  readonly step: number;
  readonly generation: number;
  readonly workers: number;
  readonly loss: number;
  readonly losses: Omit<Losses, "total">;
  readonly gradNorm: GradNorms;
  readonly lr: number;
  readonly weightDecay: number;
  readonly momentum: number;
  readonly teacherTemp: number;
  readonly lossScale: number;
  /** true when the update was skipped because of a non-finite gradient. */
  readonly skipped: boolean;
  /** Why, and what was not finite; only with `skipped`. */
  readonly offender?: Offender;
  /** Data step that it used; absent: its own number (see data-windows.ts). */
  readonly dataStep?: number;
  readonly images: number;
  readonly seconds: StepSeconds;
  /** At the steps that spec.monitor names. */
  readonly monitor?: Monitor;
  readonly unixMs: number;
}

/** One file of a checkpoint: a safetensors file with the shards of one worker. */
export interface ManifestFile {
  readonly name: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
  /** GHASH under a known key, lower-case hex: finds damage faster than SHA-256. Absent: written before there was one. */
  readonly ghash?: string;
  /** Its first bytes: header and all that is not sharded. For readers that need no more; absent: the whole file must be read. */
  readonly head?: { readonly bytes: number; readonly sha256: string };
  readonly worker: number;
}

/** manifest.json: what makes a checkpoint complete. `step` counts committed steps: the next step to run is `step`. */
export interface Manifest {
  readonly format: "paddock-checkpoint";
  readonly version: 1;
  readonly runId: string;
  readonly step: number;
  readonly generation: number;
  readonly workers: number;
  readonly logicalRanks: number;
  readonly parameters: number;
  /** Units and their padded sizes: must equal the spec's layout. */
  readonly units: readonly { readonly name: string; readonly elements: number }[];
  readonly files: readonly ManifestFile[];
  /** Loss scaler of the fp16 exchange. */
  readonly scaler: ScalerState;
  /** Data cursor: images consumed or left out. A pure function of step and windows, kept as a check. */
  readonly cursor: number;
  /** Data steps that the run leaves out; absent: none. */
  readonly leftOut?: readonly DataWindow[];
}

export interface ScalerState {
  readonly scale: number;
  /** Steps since the last overflow or growth. */
  readonly goodSteps: number;
}

/** One line of ledger.jsonl, each with the crc32c of its own JSON (without `crc`). Folding them gives the run's state. */
export type LedgerRecord =
  | {
      readonly kind: "run";
      readonly runId: string;
      readonly spec: unknown;
      /** Where it starts, if it goes on from another run's checkpoint; absent: at step 0. */
      readonly start?: {
        readonly step: number;
        readonly scaler: ScalerState;
        readonly leftOut?: readonly DataWindow[];
      };
      readonly unixMs: number;
    }
  | {
      readonly kind: "generation";
      readonly generation: number;
      readonly workers: number;
      /** Worker w executes the logical ranks [cuts[w], cuts[w + 1]). Absent in older ledgers: equally many each. */
      readonly cuts?: RankCuts;
      /** First step of this generation: work after it by older generations is void. */
      readonly step: number;
      readonly reason: string;
      readonly unixMs: number;
    }
  | {
      readonly kind: "commit";
      readonly step: number;
      readonly generation: number;
      readonly skipped: boolean;
      /** With `skipped`; absent in records of older versions. */
      readonly offender?: Offender;
      /** Total loss; only where spec.guards looks for spikes, which it judges by. */
      readonly loss?: number;
      readonly scaler: ScalerState;
      /** What the update needs: with it the decision can be told again to a worker that missed it. Absent in older ledgers. */
      readonly norms?: GradNorms;
      readonly unixMs: number;
    }
  | {
      readonly kind: "checkpoint";
      readonly step: number;
      readonly generation: number;
      /** sha256 of manifest.json. */
      readonly manifest: string;
      readonly unixMs: number;
    }
  | {
      readonly kind: "evaluation";
      readonly step: number;
      readonly knn: number;
      readonly unixMs: number;
    }
  | {
      readonly kind: "alert";
      /** The step that showed it. */
      readonly step: number;
      readonly generation: number;
      readonly collapse: CollapseKind;
      /** What the run does: spec.monitor.onCollapse; absent in records of older versions. */
      readonly action?: "warn" | "stop";
      /** Name, numbers and advice, for people. */
      readonly message: string;
      readonly unixMs: number;
    }
  | ({ readonly kind: "rollback" } & Rollback)
  | {
      /** What spec.guards made the run do, other than skip a step or go back: say so, or stop. */
      readonly kind: "guard";
      readonly step: number;
      readonly generation: number;
      readonly cause: GuardCause;
      readonly action: "warn" | "stop";
      /** For people. */
      readonly message: string;
      readonly unixMs: number;
    }
  | { readonly kind: "finished"; readonly step: number; readonly unixMs: number };
