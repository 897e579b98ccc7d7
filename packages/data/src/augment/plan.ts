/**
 * What is done to an image to make one crop: every random choice of the official augmentations (DINO's main_dino.py, DINOv2's and DINOv3's
 * data/augmentations.py; RandomResizedCrop and ColorJitter of torchvision), drawn before any pixel is touched.
 */
import {
  blurProbabilitiesOf,
  type ColorSpec,
  type CropsSpec,
  type Resolution,
  type Rng,
} from "@paddock/contract";

/** Part of an image, in its pixels. */
export interface Box {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

export type JitterOp = "brightness" | "contrast" | "saturation" | "hue";

/** Colour jitter: operations in order of application. Factors multiply; hue is a shift in turns, in [-0.5, 0.5]. */
export type Jitter = readonly { readonly op: JitterOp; readonly factor: number }[];

/** What is done to a crop's colours, in this order: jitter, grey, blur, solarise. */
export interface Distortion {
  readonly jitter: Jitter;
  readonly grayscale: boolean;
  /** Gaussian deviation in pixels of the crop; null: no blur. */
  readonly blur: { readonly sigma: number; readonly kernel: ColorSpec["blurKernel"] } | null;
  readonly solarize: boolean;
}

/** Which part of the image, before its colours change: cut out and resized, then flipped. */
export interface Geometry {
  readonly box: Box;
  readonly flip: boolean;
}

export interface CropPlan extends Geometry, Distortion {}

/** 0: first global crop, 1: second global crop, 2: local. They differ in scale, blur and solarisation. */
export type CropRole = 0 | 1 | 2;

/** Role of the crop with this index among an image's crops: 0 and 1 are global, the rest local. */
export function roleOf(cropIndex: number): CropRole {
  return cropIndex < 2 ? (cropIndex as 0 | 1) : 2;
}

/** Draws one crop of an image of the given size. */
export function drawCrop(
  rng: Rng,
  image: { readonly width: number; readonly height: number },
  role: CropRole,
  crops: CropsSpec,
): CropPlan {
  const { scale } = role === 2 ? crops.local : crops.global;
  const box = drawBox(rng, image, scale, crops.aspect);
  const flip = rng.uniform() < crops.flipProbability;
  return { box, flip, ...drawDistortion(rng, role, crops) };
}

/** Draws what is done to a crop's colours; jitter and grey are left out where the image's crops share them. */
export function drawDistortion(rng: Rng, role: CropRole, crops: CropsSpec): Distortion {
  const { color } = crops;
  const shared = crops.shareColorJitter ? unchanged : drawColor(rng, color);
  const isBlurred = rng.uniform() < blurProbabilitiesOf(color)[role];
  const blur = isBlurred
    ? { sigma: rng.between(...color.blurSigma), kernel: color.blurKernel }
    : null;
  return { ...shared, blur, solarize: role === 1 && rng.uniform() < color.solarizeProbability };
}

const unchanged: Pick<Distortion, "jitter" | "grayscale"> = { jitter: [], grayscale: false };

/** Draws jitter and grey. */
export function drawColor(rng: Rng, color: ColorSpec): Pick<Distortion, "jitter" | "grayscale"> {
  const jitter = rng.uniform() < color.jitterProbability ? drawJitter(rng, color) : [];
  return { jitter, grayscale: rng.uniform() < color.grayscaleProbability };
}

/**
 * Where a local crop lies in its global crop: whole patches from the top left corner. The reference draws below
 * (global - local) / patchSize, so the last row and column of places are never taken.
 */
export function drawOffset(
  rng: Rng,
  { global, local }: Pick<Resolution, "global" | "local">,
  patchSize: number,
): { readonly top: number; readonly left: number } {
  const places = Math.floor((global - local) / patchSize);
  const top = rng.below(places) * patchSize;
  return { top, left: rng.below(places) * patchSize };
}

/**
 * torchvision's RandomResizedCrop.get_params: ten tries of an area (uniform fraction) and an aspect ratio width / height
 * (log-uniform); if none fits, the largest central box whose aspect ratio is in range.
 */
export function drawBox(
  rng: Rng,
  { width, height }: { readonly width: number; readonly height: number },
  scale: readonly [number, number],
  aspect: readonly [number, number],
): Box {
  const area = width * height;
  const logLow = Math.log(aspect[0]);
  const logHigh = Math.log(aspect[1]);
  for (let attempt = 0; attempt < 10; attempt++) {
    const target = area * rng.between(scale[0], scale[1]);
    const ratio = Math.exp(rng.between(logLow, logHigh));
    const w = Math.round(Math.sqrt(target * ratio));
    const h = Math.round(Math.sqrt(target / ratio));
    if (0 < w && w <= width && 0 < h && h <= height) {
      const top = rng.below(height - h + 1);
      return { top, left: rng.below(width - w + 1), height: h, width: w };
    }
  }
  return centralBox(width, height, aspect);
}

function centralBox(
  width: number,
  height: number,
  [narrowest, widest]: readonly [number, number],
): Box {
  const ratio = width / height;
  const w = ratio > widest ? Math.max(1, Math.round(height * widest)) : width;
  const h = ratio < narrowest ? Math.max(1, Math.round(width / narrowest)) : height;
  const top = Math.floor((height - h) / 2);
  return { top, left: Math.floor((width - w) / 2), height: h, width: w };
}

/** torchvision's ColorJitter: a random order, factors uniform in [max(0, 1 - strength), 1 + strength], hue in [-hue, hue]. */
function drawJitter(rng: Rng, strength: ColorSpec): Jitter {
  const order = rng.permutation(jitterOps.length);
  const steps: Jitter[number][] = [];
  for (const i of order) {
    const op = jitterOps[i] as JitterOp;
    const x = strength[op];
    const low = op === "hue" ? -x : Math.max(0, 1 - x);
    const factor = rng.between(low, op === "hue" ? x : 1 + x);
    if (x > 0) steps.push({ op, factor });
  }
  return steps;
}

/** In the numbering of the recorded fixtures. */
export const jitterOps: readonly JitterOp[] = ["brightness", "contrast", "saturation", "hue"];
