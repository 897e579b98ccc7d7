import {
  type CropPlan,
  type Image,
  normalize,
  recolored,
  renderGlobal,
  resizeLevels,
} from "@paddock/data";
import {
  cutOut,
  distorted,
  pipelineLimits,
  resized,
  unroundedMean,
} from "../augment/eight-bits.js";
import { channelsLast, compareLevels, meanDistance, photoOf } from "../augment/images.js";
import { planOf } from "../augment/plans.js";
import type { Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

interface Case {
  readonly global_crops_size: number;
  readonly gram_teacher_crops_size: number | null;
  readonly gram_teacher_no_distortions: boolean;
  readonly share_color_jitter: boolean;
  readonly local_crops_subset_of_global_crops: boolean;
}

const imageNet = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/** DINOv3's global crops with the gram teacher's copies of them. */
export const augmentGram: Kind = {
  name: "augment gram crops",
  matches: (golden) =>
    Object.values((golden.config.cases ?? {}) as Record<string, unknown>).some(
      (settings) =>
        typeof settings === "object" && settings !== null && "gram_teacher_crops_size" in settings,
    ),
  run(golden, check) {
    const photo = photoOf(golden);
    for (const [name, settings] of Object.entries(golden.config.cases as Record<string, Case>)) {
      if (settings.local_crops_subset_of_global_crops) {
        throw new RangeError(`${name}: local crops within global ones are not understood here`);
      }
      for (const crop of [1, 2]) {
        const [draws = 0] = golden.shape(`inputs.${name}.${crop}.box`);
        for (let draw = 0; draw < draws; draw++) {
          compareDraw(golden, check, photo, `${name}.${crop}`, settings, draw);
        }
        check.covered(`outputs.${name}.${crop}.global`, `outputs.${name}.${crop}.gram`);
      }
    }
  },
};

function compareDraw(
  golden: Golden,
  check: Check,
  photo: Image,
  which: string,
  settings: Case,
  draw: number,
): void {
  const recorded = planOf(golden, `inputs.${which}`, draw, "kernel9");
  const isShared = settings.share_color_jitter;
  const plan: CropPlan = isShared ? { ...recorded, jitter: [], grayscale: false } : recorded;
  const image = isShared ? recolored(photo, recorded) : photo;
  const { global_crops_size: global, gram_teacher_crops_size: gram } = settings;
  const ours = renderGlobal(
    image,
    plan,
    { global, gram },
    { gramUndistorted: settings.gram_teacher_no_distortions, localInGlobal: false },
  );
  const inEightBits = viewsInEightBits(image, plan, settings);
  for (const [view, size] of [["global", global] as const, ["gram", gram] as const]) {
    if (size === null) continue;
    const name = `outputs.${which}.${view}`;
    const elements = size * size * 3;
    const values = golden.f32(name).subarray(draw * elements, (draw + 1) * elements);
    const wanted = channelsLast(values, [3, size, size]);
    const isPlain = view === "gram" && settings.gram_teacher_no_distortions;
    const changes = isPlain && !isShared ? { jitter: [] } : recorded;
    const single = pipelineLimits(changes);
    // The difference of a resize, once more where an 8-bit image is resized a second time.
    const isResizedAgain =
      settings.gram_teacher_no_distortions && size !== Math.max(global, gram ?? 0);
    const again = isResizedAgain ? pipelineLimits({ jitter: [] }) : { max: 0, mean: 0 };
    const limits = { max: single.max + again.max, mean: single.mean + again.mean };
    const level = 1 / (255 * Math.min(...imageNet.std));
    const normalized = (levels: Float32Array): Float32Array => {
      const out = new Float32Array(elements);
      normalize(levels, elements, 3, imageNet, out, 0);
      return out;
    };
    compareLevels(check, `${name} ${draw}`, normalized(inEightBits[view]), wanted, {
      max: limits.max * level + 1e-5, // single precision
      mean: limits.mean * level,
    });
    const mean = meanDistance(normalized(ours[view] as Float32Array), wanted);
    const allowed = unroundedMean(changes) * level;
    check.close(`${name} ${draw} (never rounded)`, [mean], [0], () => allowed);
  }
}

/** `renderGlobal` with a conversion to 8 bits after each operation on images; resizes after distortions are of floats in the reference, too. */
function viewsInEightBits(
  image: Image,
  plan: CropPlan,
  settings: Case,
): Record<"global" | "gram", Float32Array> {
  const { global_crops_size: size, gram_teacher_crops_size: gramSize } = settings;
  const baseSize = Math.max(size, gramSize ?? 0);
  const base = cutOut(image, plan, baseSize);
  if (settings.gram_teacher_no_distortions) {
    return {
      global: distorted(resized(base, baseSize, size), size, plan),
      gram: resized(base, baseSize, gramSize ?? size),
    };
  }
  const large = distorted(base, baseSize, plan);
  const view = (to: number): Float32Array => {
    const out = new Float32Array(to * to * 3);
    resizeLevels(large, { height: baseSize, width: baseSize }, 3, to, false, out);
    return out;
  };
  return { global: view(size), gram: view(gramSize ?? size) };
}
