/** Losses, optimizer and schedules. Every schedule is a pure function of the step. */
import { z } from "zod";
import { originHash } from "./hash.js";

const weight = z.number().nonnegative();
const steps = z.number().int().nonnegative();

/** Similarities of patches held close to those of an earlier teacher (dinov3/loss/gram_loss.py). */
const GramSpec = z.strictObject({
  /** ema: the teacher of this run. frozen: a backbone of its own that only `update` changes. */
  teacher: z.enum(["ema", "frozen"]).default("frozen"),
  /** Checkpoint directory whose teacher the frozen one starts from; null: from this run's first teacher. */
  checkpoint: z.string().min(1).nullable().default(null),
  /** SHA-256 of its manifest.json; null: not checked. */
  sha256: originHash,
  /** Copy the EMA teacher into the frozen one: after step `first`, then every `every` steps, `max` times (null: no end). null: never. */
  update: z
    .strictObject({
      first: steps.default(0),
      every: z.number().int().positive(),
      max: z.number().int().positive().nullable().default(null),
    })
    .nullable()
    .default(null),
  /** Copy the EMA teacher into the frozen one before this step, whatever `update` says. DINOv3: it_load_ema_teacher. null: never. */
  loadStep: z.number().int().positive().nullable().default(null),
  /** L2-normalise patches before their inner products. */
  normalized: z.boolean().default(true),
  /** Similarities within each image; false: among all patches of a rank. */
  imageLevel: z.boolean().default(false),
  /** remove: negative similarities count as 0 on both sides; remove-teacher: on the teacher's only. */
  negatives: z.enum(["keep", "remove", "remove-teacher"]).default("keep"),
  /** Which patches of the global crops take part. */
  tokens: z.enum(["all", "masked", "unmasked"]).default("all"),
  /** How the teacher's patches are brought to the student's grid, if its crops are larger. */
  resize: z.enum(["bicubic", "bilinear"]).default("bicubic"),
  antialias: z.boolean().default(false),
});
export type GramSpec = z.infer<typeof GramSpec>;

export const LossSpec = z.strictObject({
  /** Weight of the DINO loss (all crop pairs, normalised jointly). */
  dino: weight.default(1),
  /** Also compare the two networks on the same global crop (DINOv3 global_ignore_diagonal: false). */
  samePairs: z.boolean().default(false),
  /** Weight of the masked-patch iBOT loss; 0 turns masking off. */
  ibot: weight.default(1),
  /** Weight of KoLeo per global crop. Official 0.1. Needs at least 2 images per logical rank. */
  koleo: weight.default(0.1),
  /** Nearest neighbours of each feature that KoLeo pushes away. DINOv3: koleo_topk. */
  koleoTopk: z.number().int().positive().default(1),
  /**
   * Images among which neighbours are looked for: null: those of the logical rank; else this many images of consecutive ranks,
   * a multiple of batchPerRank that divides the global batch; "all": the global batch (DINOv3 koleo_loss_distributed).
   */
  koleoGroup: z
    .union([z.number().int().positive(), z.literal("all")])
    .nullable()
    .default(null),
  /** Gram loss of DINOv3, or null. Its weight is schedules.gramWeight. */
  gram: GramSpec.nullable().default(null),
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

const form = {
  /**
   * cosine: linear from start to peak over warmupSteps, both ends included, then a cosine that approaches `end` (DINO, DINOv2, DINOv3
   * without `schedules`). warmup-cosine: the peak is reached after the warm-up, the cosine includes both ends, `end` follows (DINOv3
   * linear_warmup_cosine_decay).
   */
  kind: z.enum(["cosine", "warmup-cosine"]).default("cosine"),
  /** Steps of the linear warm-up. */
  warmupSteps: steps.default(0),
  /** Steps at value 0 before the warm-up (cosine only). */
  freezeSteps: steps.default(0),
  /** The cosine is computed for a run longer by this fraction and cut (cosine only; DINOv3 schedule_trunc_extra). */
  truncExtra: z.number().nonnegative().default(0),
  /** Steps of the cosine (warmup-cosine only); null: all that remain. */
  cosineSteps: z.number().int().positive().nullable().default(null),
  /** Steps for which a value holds: the schedule is that of step / stepsPerValue, its step counts are in these units. DINO's temperature: an epoch. */
  stepsPerValue: z.number().int().positive().default(1),
};

const schedule = (start: number, peak: number, end: number) =>
  z
    .strictObject({
      start: z.number().default(start),
      peak: z.number().default(peak),
      end: z.number().default(end),
      ...form,
    })
    .prefault({});
export type Schedule = z.infer<ReturnType<typeof schedule>>;

export const ScheduleSpec = z.strictObject({
  /** Learning rate, already scaled to the global batch. Official DINOv2: 0.004 * sqrt(batch / 1024). */
  learningRate: schedule(0, 1e-3, 1e-6),
  /** Decoupled weight decay: rises by a cosine. Official 0.04 to 0.4. `peak` is the value at step 0. */
  weightDecay: schedule(0, 0.04, 0.4),
  /** Momentum of the EMA teacher. Official 0.992 to 1. `peak` is the value at step 0. */
  momentum: schedule(0, 0.992, 1),
  /** Teacher temperature: linear from `start` to `peak` over warmupSteps, then constant. Must be in (0, 1). */
  teacherTemperature: z
    .strictObject({
      start: z.number().positive().max(1).default(0.04),
      peak: z.number().positive().max(1).default(0.07),
      /** null: `peak`. */
      end: z.number().positive().max(1).nullable().default(null),
      ...form,
    })
    .prefault({}),
  /** Factor on the DINO loss of local crops. DINOv3: local_loss_weight_schedule. */
  localWeight: schedule(1, 1, 1),
  /** Weight of the Gram loss. DINOv3: gram.loss_weight_schedule. */
  gramWeight: schedule(1, 1, 1),
  /** Steps during which the prototypes do not move. */
  freezeLastLayerSteps: steps.default(0),
});
export type ScheduleSpec = z.infer<typeof ScheduleSpec>;

export const OptimizerSpec = z.strictObject({
  /** adamw everywhere official but DINO's sgd and lars for convolutional networks. */
  kind: z.enum(["adamw", "sgd", "lars"]).default("adamw"),
  /** AdamW coefficients. */
  beta1: z.number().min(0).lt(1).default(0.9),
  beta2: z.number().min(0).lt(1).default(0.999),
  eps: z.number().positive().default(1e-8),
  /** Momentum of sgd and lars. */
  sgdMomentum: z.number().min(0).lt(1).default(0.9),
  /** Trust coefficient of lars. */
  larsEta: z.number().positive().default(0.001),
  /** Learning-rate factor per block from the top: rate^(depth + 1 - id). 1 turns it off. Official 0.9. */
  layerDecay: z.number().positive().max(1).default(0.9),
  /** Extra learning-rate factor of the patch embedding. Official 0.2. */
  patchEmbedMultiplier: z.number().positive().default(0.2),
  /** What is decayed. names: all but biases, norms and LayerScale (DINOv2, DINOv3); matrices: all but biases and vectors (DINO). */
  decay: z.enum(["names", "matrices"]).default("names"),
  /** Gradient-norm limit; 0 turns clipping off. Official 3. */
  clipNorm: z.number().nonnegative().default(3),
  /** Norms over the backbone and each head (DINOv2, DINOv3), or over each tensor (DINO). */
  clipBy: z.enum(["submodule", "tensor"]).default("submodule"),
  /** What freezes the last layer: a learning rate of 0, moments collect (DINOv2, DINOv3); no gradient, no moments (DINO). */
  freezeLastLayer: z.enum(["learning-rate", "gradient"]).default("learning-rate"),
});
export type OptimizerSpec = z.infer<typeof OptimizerSpec>;
