import { type CropPlan, type Image, normalize, renderCrop } from "@paddock/data";
import { cutOut, distorted, pipelineLimits, unroundedMean } from "../augment/eight-bits.js";
import { channelsLast, compareLevels, meanDistance, photoOf } from "../augment/images.js";
import { kernelOf, planOf } from "../augment/plans.js";
import type { Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

/** Whole pipelines with every parameter recorded: outputs.<crop>.image, U8 [draw, H, W, 3]. */
export const augmentReplay: Kind = {
  name: "augment replay",
  matches: (golden) =>
    golden.names("inputs.").some((name) => name.endsWith(".box")) && cropsIn(golden).length > 0,
  run(golden, check) {
    const photo = photoOf(golden);
    const kernel = kernelOf(golden.config.kernel ?? 9);
    for (const crop of cropsIn(golden)) {
      const [draws, size] = golden.shape(`outputs.${crop}.image`) as [number, number];
      const plans = Array.from({ length: draws }, (_, draw) =>
        planOf(golden, `inputs.${crop}`, draw, kernel),
      );
      plans.forEach((plan, draw) => {
        compareDraw(golden, check, photo, crop, plan, draw, size);
      });
      const [first] = plans;
      if (first) compareNormalized(golden, check, photo, crop, first, size);
      check.covered(`outputs.${crop}.image`);
    }
  },
};

function cropsIn(golden: Golden): string[] {
  return golden
    .names("outputs.")
    .flatMap((name) => /^outputs\.(\w+)\.image$/.exec(name)?.[1] ?? []);
}

function compareDraw(
  golden: Golden,
  check: Check,
  photo: Image,
  crop: string,
  plan: CropPlan,
  draw: number,
  size: number,
): void {
  const elements = size * size * 3;
  const wanted = golden
    .u8(`outputs.${crop}.image`)
    .subarray(draw * elements, (draw + 1) * elements);
  const what = `outputs.${crop}.image ${draw}`;
  const inEightBits = distorted(cutOut(photo, plan, size), size, plan);
  compareLevels(check, what, inEightBits, wanted, pipelineLimits(plan));
  const ours = renderCrop(photo, plan, size).subarray(0, elements);
  const mean = meanDistance(ours, wanted);
  check.close(`${what} (never rounded)`, [mean], [0], () => unroundedMean(plan));
}

function compareNormalized(
  golden: Golden,
  check: Check,
  photo: Image,
  crop: string,
  plan: CropPlan,
  size: number,
): void {
  const name = `outputs.${crop}.normalized0`;
  if (!golden.has(name)) return;
  const { mean, std } = golden.config as { mean: number[]; std: number[] };
  const levels = distorted(cutOut(photo, plan, size), size, plan);
  const ours = new Float32Array(levels.length);
  normalize(levels, levels.length, 3, { mean, std }, ours, 0);
  const wanted = channelsLast(golden.f32(name), golden.shape(name));
  const level = 1 / (255 * Math.min(...std));
  const limits = pipelineLimits(plan);
  compareLevels(check, name, ours, wanted, {
    max: limits.max * level + 1e-5, // single precision
    mean: limits.mean * level,
  });
  check.covered(name);
}
