/** What a training step takes, gives and asks of its surroundings. */
import type { Layout, RunSpec, StepScalars } from "@paddock/contract";
import type * as tf from "@tensorflow/tfjs-core";
import type { Centers } from "../loss/centering.js";
import type { Gathered, UnitTensors } from "../tensors.js";
import type { DrawRope } from "../vit/rope.js";
import type { ChooseSequences, DrawUniforms } from "../vit/stochastic-depth.js";
import type { Spread } from "./spread.js";

/** Whose weights: `frozen` is a teacher that does not follow the student (Gram, distillation). */
export type Side = "student" | "teacher" | "frozen";

/** The parts of a step, as they begin. */
export type StepPhase = "teacher" | "loss" | "student" | "backward";

/** How a step reaches parameters, gradients and other workers. */
export interface StepDeps {
  /** The parameters of a unit; the step releases them. */
  gather(side: Side, unit: string): Promise<Gathered>;
  /** A hint that `gather` of this unit comes next. At most one unit is prefetched beyond the one in use. */
  prefetch(side: Side, unit: string): void;
  /**
   * Takes ownership of the gradients of one local rank's own loss. Called once per unit of the layout and local rank, units
   * in one order on every worker, ranks ascending; parameters without an entry have a zero gradient.
   */
  emitGradient(unit: string, rank: number, grads: UnitTensors): Promise<void>;
  /**
   * The fixed-tree sum over all logical ranks, other workers' included, of one vector per local rank (ascending).
   * Every worker calls it with the same keys in the same order.
   */
  sumAcrossRanks(key: string, perLocalRank: readonly Float32Array[]): Promise<Float32Array>;
  /** Called when a part begins; for timing. */
  phase?(name: StepPhase): void;
}

/** The data of one logical rank. B images per rank, P patches of a global crop. */
export interface RankBatch {
  readonly rank: number;
  /** [2B,H,W,C] normalised pixels; crop 1 of all images first, then crop 2 (the official order). */
  readonly globalCrops: Float32Array;
  /** [n B,h,w,C], crop-major; null without local crops. */
  readonly localCrops: Float32Array | null;
  /** [2B,g,g,C]: the gram teacher's copies of the global crops, in their order; absent or null without such crops. */
  readonly gramCrops?: Float32Array | null;
  /** Flat indices i * P + p of the masked patches of the 2B global crops, ascending. */
  readonly maskRows: Int32Array;
  /** 1 / (masked patches of its crop), one per entry of `maskRows`. */
  readonly maskWeights: Float32Array;
}

/**
 * What lies between inputs and losses, by rank. teacher-*-scores: [2B,K] of the global crops, [masked,K]; *-targets: the probabilities made of
 * them; student-rows: [S,D] normed rows before the heads (cls of local crops, of global crops, masked patches, patches of the Gram
 * loss); gram-*: [G,D].
 */
export type Observation =
  | "teacher-cls-scores"
  | "teacher-patch-scores"
  | "cls-targets"
  | "patch-targets"
  | "student-rows"
  | "gram-student"
  | "gram-teacher";

export interface TrainStepArgs {
  readonly spec: RunSpec;
  readonly layout: Layout;
  /** From 0. */
  readonly step: number;
  readonly scalars: StepScalars;
  /**
   * Factor on the emitted gradients, applied to the loss: with fp16 small gradients would vanish on their way back. A power of
   * two; 1 by default. Losses are reported without it.
   */
  readonly lossScale?: number;
  /** The local ranks, ascending. */
  readonly batches: readonly RankBatch[];
  readonly centers: Centers;
  readonly deps: StepDeps;
  /** Which sequences stochastic depth by subset keeps; the default is a pure function of the seed, as are the next two. */
  readonly chooseSequences?: ChooseSequences;
  /** The draws of stochastic depth by sample. */
  readonly drawUniforms?: DrawUniforms;
  /** How rotary positions change coordinates; asked only if the spec has them change. */
  readonly drawRope?: DrawRope;
  /** Called with tensors that belong to the step: to be read at once. For tests and tools; a device waits for each reading. */
  readonly observe?: (what: Observation, rank: number, tensor: tf.Tensor) => void;
}

/**
 * The losses of one rank, in nats. The parts are raw, before the spec's weights and the schedule's `localWeight`, so that
 * total = dino * (localWeight * dinoLocal + dinoGlobal) + koleo * koleo + ibot * ibot + gramWeight * gram is what the rank's gradients belong to (with a
 * KoLeo group: to the sum of the group's totals). A part whose weight is 0 is reported as 0. The official logs halve koleo and ibot
 * (DINOv2) or report means over pairs and crops (DINOv3); these do neither.
 */
export interface RankLosses {
  readonly rank: number;
  readonly total: number;
  /** Sum over local-global pairs / number of all pairs. */
  readonly dinoLocal: number;
  /** Sum over global-global pairs / number of all pairs. */
  readonly dinoGlobal: number;
  /** Sum over the two global crops; of the rank's own rows, wherever their neighbours are. */
  readonly koleo: number;
  readonly ibot: number;
  /** Mean squared difference of similarities. */
  readonly gram: number;
}

/** Signs of collapse of one rank's teacher (monitor.ts): nats, and what `Spread` says. */
export interface RankMonitor extends Spread {
  readonly rank: number;
  /** Mean entropy of the teacher's outputs for global crops; ln K: uniform. */
  readonly teacherEntropy: number;
  /** KL of the mean output to uniform; ln K: one prototype has everything. */
  readonly klToUniform: number;
}

export interface TrainStepResult {
  readonly losses: readonly RankLosses[];
  /** One per local rank at the steps that spec.monitor names, else empty. */
  readonly monitors: readonly RankMonitor[];
  /** To be adopted if the step is committed. */
  readonly centers: Centers;
}
