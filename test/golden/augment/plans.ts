/** Recorded parameters of crops, and the spec that the recorded pipeline had. */
import { parseRunSpec, type RunSpec } from "@paddock/contract";
import { type Box, type CropPlan, type CropRole, jitterOps } from "@paddock/data";
import type { Golden } from "../file.js";

/** The recorded pipelines by name, with Paddock's roles of their crops. */
export const recordedRoles: readonly (readonly [string, CropRole])[] = [
  ["global1", 0],
  ["global2", 1],
  ["local", 2],
];

/** A crop of draw `draw`, recorded under `prefix` (inputs.global1, outputs.local, ...). */
export function planOf(
  golden: Golden,
  prefix: string,
  draw: number,
  kernel: "kernel9" | "pillow",
): CropPlan {
  const at = (name: string, width = 1): number[] =>
    Array.from(golden.values(`${prefix}.${name}`).slice(draw * width, (draw + 1) * width));
  const happened = (name: string): boolean => at(name)[0] === 1;
  const [top, left, height, width] = at("box", 4) as [number, number, number, number];
  const factors = at("jitter_factor", 4);
  const jitter = at("jitter_order", 4)
    .filter((op) => op >= 0)
    .map((op) => {
      const name = jitterOps[op];
      if (!name) throw new RangeError(`jitter_order: expected 0 to 3, received ${op}`);
      return { op: name, factor: factors[op] as number };
    });
  return {
    box: { top, left, height, width },
    flip: happened("flip"),
    jitter,
    grayscale: happened("grayscale"),
    blur: happened("blur") ? { sigma: at("blur_sigma")[0] as number, kernel } : null,
    solarize: happened("solarize"),
  };
}

/** Settings of a recorded pipeline, as they stand in the files' config. */
interface PipelineConfig {
  readonly global_crops_scale: [number, number];
  readonly local_crops_scale: [number, number];
  readonly global_crops_size: number;
  readonly local_crops_size: number;
  readonly jitter: {
    readonly p: number;
    readonly brightness: number;
    readonly contrast: number;
    readonly saturation: number;
    readonly hue: number;
  };
  readonly grayscale_p: number;
  readonly flip_p: number;
  readonly solarize_p_global2: number;
  readonly aspect_range: [number, number];
  readonly blur_sigma_range: [number, number];
  readonly kernel: number | string;
}

/** DINO blurs with Pillow and as its paper says, DINOv2 and DINOv3 with nine taps and the other way round. */
export function kernelOf(kernel: unknown): "kernel9" | "pillow" {
  if (kernel === "pillow") return "pillow";
  if (kernel === 9) return "kernel9";
  throw new RangeError(`kernel: expected 9 or "pillow", received ${JSON.stringify(kernel)}`);
}

export function cropsOf(config: PipelineConfig): RunSpec["crops"] {
  const { p, ...strengths } = config.jitter;
  const blurKernel = kernelOf(config.kernel);
  return parseRunSpec({
    steps: 1,
    batchPerRank: 2,
    model: { patchSize: 1 }, // recorded sizes need be no multiples of a patch
    data: { path: "unused" },
    crops: {
      global: { size: config.global_crops_size, scale: config.global_crops_scale },
      local: { size: config.local_crops_size, scale: config.local_crops_scale },
      aspect: config.aspect_range,
      flipProbability: config.flip_p,
      color: {
        ...strengths,
        jitterProbability: p,
        grayscaleProbability: config.grayscale_p,
        solarizeProbability: config.solarize_p_global2,
        blurSigma: config.blur_sigma_range,
        blurKernel,
        blur: blurKernel === "pillow" ? "paper" : "official",
      },
    },
  }).crops;
}

/** Whether a box lies in the image and rounds an area and an aspect ratio of the ranges, or is the central one of an image that none fits. */
export function isPossibleBox(
  { top, left, height, width }: Box,
  image: { readonly height: number; readonly width: number },
  [smallest, largest]: readonly [number, number],
  [narrowest, widest]: readonly [number, number],
): boolean {
  const isInside =
    top >= 0 &&
    left >= 0 &&
    height > 0 &&
    width > 0 &&
    top + height <= image.height &&
    left + width <= image.width;
  const area = image.height * image.width;
  const isOfSize =
    (height - 0.5) * (width - 0.5) <= largest * area &&
    (height + 0.5) * (width + 0.5) >= smallest * area;
  const isOfShape =
    (width - 0.5) / (height + 0.5) <= widest && (width + 0.5) / (height - 0.5) >= narrowest;
  const isCentral =
    (height === image.height || width === image.width) &&
    top === Math.floor((image.height - height) / 2) &&
    left === Math.floor((image.width - width) / 2);
  return isInside && isOfShape && (isOfSize || isCentral);
}
