/** Where images come from, and how crops and masks are drawn from them. */
import { z } from "zod";
import { rngOf, streams } from "../rng.js";

const probability = z.number().min(0).max(1);
const range = z.tuple([z.number(), z.number()]).refine(([low, high]) => low <= high, {
  message: "expected [low, high] with low <= high",
});

export const DataSpec = z.strictObject({
  /** `folder`: image files, class subfolders optional. `idx`: the MNIST family's format. */
  kind: z.enum(["folder", "idx"]).default("folder"),
  /** Folder of the training images (folder), or folder with train-images-idx3-ubyte[.gz] and its siblings (idx). */
  path: z.string().min(1),
  /** Labelled held-out images for k-NN (folder kind): same layout as `path`. null: no k-NN. idx uses its t10k files. */
  validationPath: z.string().min(1).nullable().default(null),
  /** Largest accepted side of an image, in pixels; larger ones are treated as corrupt (decompression bombs). */
  maxSide: z.number().int().positive().default(16384),
  /** Threads that decode and augment in each worker. */
  threads: z.number().int().positive().default(1),
});
export type DataSpec = z.infer<typeof DataSpec>;

/** Colour distortions, in the official order: jitter, grey, blur, solarise (dinov2/data/augmentations.py). */
export const ColorSpec = z.strictObject({
  /** Probability of the colour jitter, and its four strengths. Brightness and contrast also act on grey images. */
  jitterProbability: probability.default(0.8),
  brightness: z.number().nonnegative().default(0.4),
  contrast: z.number().nonnegative().default(0.4),
  saturation: z.number().nonnegative().default(0.2),
  hue: z.number().min(0).max(0.5).default(0.1),
  /** Probability of turning grey. */
  grayscaleProbability: probability.default(0.2),
  /**
   * Probabilities of blur for global crop 1, global crop 2, local crops. paper: 1, 0.1, 0.5, as DINO does. official: 0, 0.9, 0.5,
   * which DINOv2's and DINOv3's code does by handing 1 - p on; released weights were trained so (github.com/facebookresearch/dinov3/issues/286).
   */
  blur: z.enum(["official", "paper"]).default("official"),
  /** Probabilities of one's own instead. */
  blurProbabilities: z.tuple([probability, probability, probability]).nullable().default(null),
  /** kernel9: torchvision's 9 x 9 Gaussian (DINOv2, DINOv3). pillow: Pillow's repeated box filter of that radius (DINO). */
  blurKernel: z.enum(["kernel9", "pillow"]).default("kernel9"),
  /** Blur radius sigma range, in pixels. Official: 0.1 to 2. */
  blurSigma: range.default([0.1, 2]),
  /** Probability of solarising global crop 2 (threshold 128 of 255). */
  solarizeProbability: probability.default(0.2),
});
export type ColorSpec = z.infer<typeof ColorSpec>;

/** Real blur probabilities of global crop 1, global crop 2, local crops. */
export function blurProbabilitiesOf(color: ColorSpec): readonly [number, number, number] {
  return color.blurProbabilities ?? (color.blur === "official" ? [0, 0.9, 0.5] : [1, 0.1, 0.5]);
}

export const CropSpec = z.strictObject({
  /** Side of a crop, in pixels: a multiple of the patch size. */
  size: z.number().int().positive(),
  /** Area of the crop as a fraction of the image, drawn uniformly. */
  scale: range,
});
export type CropSpec = z.infer<typeof CropSpec>;

export const CropsSpec = z.strictObject({
  /** Two global crops per image. Official: 224, [0.32, 1]. */
  global: CropSpec.default({ size: 224, scale: [0.32, 1] }),
  /** Local crops. Official: 96, [0.05, 0.32]. */
  local: CropSpec.default({ size: 96, scale: [0.05, 0.32] }),
  /** Number of local crops per image. Official: 8; 0 is allowed. */
  localCount: z.number().int().nonnegative().default(8),
  /** Side of the undistorted or distorted copies of the global crops that the gram teacher sees, in pixels; null: none (DINOv3). */
  gramSize: z.number().int().positive().nullable().default(null),
  /** Gram teacher crops without colour distortions (DINOv3 gram_teacher_no_distortions). */
  gramUndistorted: z.boolean().default(false),
  /**
   * Sizes to train with in turn, drawn per step with these ratios, the same on all ranks: high-resolution adaptation
   * (DINOv3). Empty: the sizes above.
   */
  resolutions: z
    .array(
      z.strictObject({
        global: z.number().int().positive(),
        local: z.number().int().positive(),
        gram: z.number().int().positive().nullable().default(null),
        ratio: z.number().positive(),
      }),
    )
    .default([]),
  /** Draw colour jitter and grey once per image and apply them before cropping (DINOv3 share_color_jitter). */
  shareColorJitter: z.boolean().default(false),
  /** Cut local crops out of the two global crops, half of them from each, on the patch grid (DINOv3 localcrops_subset_of_globalcrops). */
  localInGlobal: z.boolean().default(false),
  /** Aspect ratio range of a crop, drawn log-uniformly. torchvision's default 3/4 to 4/3. */
  aspect: range.default([3 / 4, 4 / 3]),
  /** Probability of a horizontal flip. */
  flipProbability: probability.default(0.5),
  color: ColorSpec.prefault({}),
  /** Per-channel mean and standard deviation of pixels in [0, 1]; one entry per channel. ImageNet's by default. */
  mean: z.array(z.number()).min(1).default([0.485, 0.456, 0.406]),
  std: z.array(z.number().positive()).min(1).default([0.229, 0.224, 0.225]),
});
export type CropsSpec = z.infer<typeof CropsSpec>;

/** Sizes of the crops of one step, in pixels. */
export interface Resolution {
  readonly global: number;
  readonly local: number;
  /** Of the gram teacher's copies of the global crops; null: there are none. */
  readonly gram: number | null;
}

/** All sizes that steps may have. */
export function resolutionsOf(crops: CropsSpec): readonly Resolution[] {
  if (crops.resolutions.length > 0) return crops.resolutions;
  return [{ global: crops.global.size, local: crops.local.size, gram: crops.gramSize }];
}

/** Sizes of the crops at `step`: a pure function of seed and step, so the same on all ranks (dinov3/data/meta_loaders.py). */
export function resolutionAt(
  spec: { readonly seed: number; readonly crops: CropsSpec },
  step: number,
): Resolution {
  const { resolutions } = spec.crops;
  const all = resolutionsOf(spec.crops);
  if (all.length === 1) return all[0] as Resolution;
  const total = resolutions.reduce((sum, { ratio }) => sum + ratio, 0);
  let left = total * rngOf(spec.seed, streams.resolution, step).uniform();
  for (const resolution of resolutions) {
    left -= resolution.ratio;
    if (left < 0) return resolution;
  }
  return all.at(-1) as Resolution;
}

/** What crop sizes must be beside positive. Each line says what is expected, what was received, and what to change. */
export function cropProblems(crops: CropsSpec, patchSize: number): string[] {
  const sizes = resolutionsOf(crops);
  const rules: [boolean, string][] = [
    [
      crops.global.size % patchSize === 0,
      `crops.global.size: expected a multiple of model.patchSize ${patchSize}, received ${crops.global.size}`,
    ],
    [
      crops.localCount === 0 || crops.local.size % patchSize === 0,
      `crops.local.size: expected a multiple of model.patchSize ${patchSize}, received ${crops.local.size}`,
    ],
    [
      (crops.gramSize ?? 0) % patchSize === 0,
      `crops.gramSize: expected a multiple of model.patchSize ${patchSize}, received ${crops.gramSize}`,
    ],
    [
      sizes.every(({ global, local, gram }) =>
        [global, local, gram ?? 0].every((side) => side % patchSize === 0),
      ) || crops.resolutions.length === 0,
      `crops.resolutions: expected sizes that are multiples of model.patchSize ${patchSize}`,
    ],
    [
      sizes.every(({ gram }) => (gram === null) === (sizes[0]?.gram === null)),
      "crops.resolutions: expected gram sizes in all of them or in none",
    ],
    [
      !crops.localInGlobal || crops.localCount % 2 === 0,
      `crops.localCount: with crops.localInGlobal half of the local crops come from each global crop; expected an even number, received ${crops.localCount}`,
    ],
    [
      !crops.localInGlobal ||
        crops.localCount === 0 ||
        sizes.every(({ global, local }) => global - local >= patchSize),
      `crops.localInGlobal: expected local crops at least one patch of ${patchSize} smaller than global ones; change the sizes or set it to false`,
    ],
  ];
  return rules.filter(([holds]) => !holds).map(([, message]) => message);
}

/** BEiT block masking of global crops for iBOT (dinov2/data/masking.py, collate.py). */
export const MaskSpec = z.strictObject({
  /** Fraction of global crops that are masked. Official: 0.5. */
  probability: probability.default(0.5),
  /** Range of the masked fraction of a masked crop. Official: [0.1, 0.5]. */
  ratio: range.default([0.1, 0.5]),
  /** Fill each mask up to its number of patches (DINOv3); without, blocks may cover fewer (DINOv2). */
  exact: z.boolean().default(false),
  /** Roll each mask by a random number of rows and columns (DINOv3 mask_random_circular_shift). */
  circularShift: z.boolean().default(false),
});
export type MaskSpec = z.infer<typeof MaskSpec>;
