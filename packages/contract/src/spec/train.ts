/** Losses, optimizer and schedules. Every schedule is a pure function of the step. */
import { z } from "zod";

const weight = z.number().nonnegative();

export const LossSpec = z.strictObject({
  /** Weight of the DINO loss (all crop pairs, normalised jointly). */
  dino: weight.default(1),
  /** Weight of the masked-patch iBOT loss; 0 turns masking off. */
  ibot: weight.default(1),
  /** Weight of KoLeo per global crop. Official 0.1. Needs at least 2 images per logical rank. */
  koleo: weight.default(0.1),
  /** How teacher scores become targets: Sinkhorn-Knopp over all logical ranks, or softmax with a moving centre. */
  centering: z.enum(["sinkhorn", "softmax"]).default("sinkhorn"),
  /** Sinkhorn-Knopp iterations. Official: 3. */
  sinkhornIterations: z.number().int().positive().default(3),
  /** Momentum of the softmax centre. Official: 0.9. */
  centerMomentum: z.number().min(0).lt(1).default(0.9),
  /** Student temperature, constant. Official: 0.1. */
  studentTemperature: z.number().positive().default(0.1),
});
export type LossSpec = z.infer<typeof LossSpec>;

/** linear from `start` to `peak` over `warmupSteps` (both ends included), then cosine to `end` (dinov2 CosineScheduler). */
const cosine = (start: number, peak: number, end: number) =>
  z
    .strictObject({
      start: z.number().default(start),
      peak: z.number().default(peak),
      end: z.number().default(end),
      /** Steps of the linear warm-up. */
      warmupSteps: z.number().int().nonnegative().default(0),
    })
    .prefault({});

export const ScheduleSpec = z.strictObject({
  /** Learning rate, already scaled to the global batch. Official DINOv2: 0.004 * sqrt(batch / 1024). */
  learningRate: cosine(0, 1e-3, 1e-6),
  /** Decoupled weight decay: rises by a cosine. Official 0.04 to 0.4. `peak` is the value at step 0. */
  weightDecay: cosine(0, 0.04, 0.4),
  /** Momentum of the EMA teacher. Official 0.992 to 1. `peak` is the value at step 0. */
  momentum: cosine(0, 0.992, 1),
  /** Teacher temperature: linear from `start` to `peak` over warmupSteps, then constant. Must be in (0, 1). */
  teacherTemperature: z
    .strictObject({
      start: z.number().positive().max(1).default(0.04),
      peak: z.number().positive().max(1).default(0.07),
      warmupSteps: z.number().int().nonnegative().default(0),
    })
    .prefault({}),
  /** Steps during which the prototypes' learning rate is 0 (moments still collect). */
  freezeLastLayerSteps: z.number().int().nonnegative().default(0),
});
export type ScheduleSpec = z.infer<typeof ScheduleSpec>;

export const OptimizerSpec = z.strictObject({
  /** AdamW coefficients. */
  beta1: z.number().min(0).lt(1).default(0.9),
  beta2: z.number().min(0).lt(1).default(0.999),
  eps: z.number().positive().default(1e-8),
  /** Learning-rate factor per block from the top: rate^(depth + 1 - id). 1 turns it off. Official 0.9. */
  layerDecay: z.number().positive().max(1).default(0.9),
  /** Extra learning-rate factor of the patch embedding. Official 0.2. */
  patchEmbedMultiplier: z.number().positive().default(0.2),
  /** Gradient-norm limit, separately for backbone and each head; 0 turns clipping off. Official 3. */
  clipNorm: z.number().nonnegative().default(3),
});
export type OptimizerSpec = z.infer<typeof OptimizerSpec>;
