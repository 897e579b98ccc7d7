/**
 * Draws of the official transforms: how often operations happen, what their parameters are, and what the output looks like. The recorded draws
 * must be possible under Paddock's rules and give the recorded output when they are carried out; Paddock's own must be distributed alike.
 */
import { type RunSpec, rngOf } from "@paddock/contract";
import {
  type CropPlan,
  type CropRole,
  drawCrop,
  type Image,
  jitterOps,
  normalize,
  renderCrop,
} from "@paddock/data";
import { cutOut, distorted, pipelineLimits } from "../augment/eight-bits.js";
import { photoOf } from "../augment/images.js";
import { cropsOf, isPossibleBox, planOf, recordedRoles } from "../augment/plans.js";
import {
  histogramOf,
  momentsOf,
  sameHistogram,
  sameMoments,
  sameShare,
  sameShares,
  shareOf,
} from "../augment/statistics.js";
import type { Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

/** Plans drawn per crop: enough that the recorded sample's own errors decide. */
const numPlans = 40_000;
/** Recorded draws carried out per crop, and crops of Paddock's own. */
const numReplays = 40;
const numCrops = 60;

interface Pooled {
  readonly flip: number;
  readonly jitter: number;
  readonly grayscale: number;
  readonly blur: number;
  readonly solarize: number;
}

interface Summary extends Pooled {
  readonly n: number;
  readonly blur_sigma_mean: number | null;
  readonly area_fraction_mean_std: [number, number];
  readonly log_aspect_mean_std: [number, number];
  readonly area_hist_range: [number, number];
  readonly log_aspect_hist_range: [number, number];
}

interface More extends Pooled {
  readonly blur_sigma_mean_std: [number, number] | null;
  readonly jitter_factor_mean: number[];
  readonly jitter_factor_min: number[];
  readonly jitter_factor_max: number[];
  readonly jitter_first_operation_share: number[];
}

interface Subject {
  readonly golden: Golden;
  readonly check: Check;
  readonly photo: Image;
  readonly crops: RunSpec["crops"];
  readonly name: string;
  readonly role: CropRole;
  /** Paddock's own. */
  readonly plans: readonly CropPlan[];
  readonly recorded: readonly CropPlan[];
}

export const augmentStats: Kind = {
  name: "augment statistics",
  matches: (golden) =>
    golden.names("outputs.").some((name) => name.endsWith(".channel_mean")) &&
    golden.config.global_crops_scale !== undefined,
  run(golden, check) {
    const photo = photoOf(golden);
    const crops = cropsOf(golden.config);
    const more = golden.metadata<({ draws: number } & Record<string, More>) | null>(
      "fractions_over_more_draws",
    );
    const summaries = golden.metadata<Record<string, Summary>>("summary");
    for (const [name, role] of recordedRoles) {
      const prefix = `outputs.${name}`;
      const [draws = 0] = golden.shape(`${prefix}.box`);
      const subject: Subject = {
        ...{ golden, check, photo, crops, name, role },
        plans: Array.from({ length: numPlans }, (_, i) =>
          drawCrop(rngOf(3, role, i), photo, role, crops),
        ),
        recorded: Array.from({ length: draws }, (_, draw) =>
          planOf(golden, prefix, draw, crops.color.blurKernel),
        ),
      };
      compareOccurrences(subject);
      compareBoxes(subject, summaries[name] as Summary);
      compareJitter(subject);
      compareSigmas(subject);
      if (more) compareMore(subject, more[name] as More, more.draws);
      compareOutputs(subject);
    }
  },
};

const occurrences: Readonly<Record<keyof Pooled, (plan: CropPlan) => boolean>> = {
  flip: (plan) => plan.flip,
  jitter: (plan) => plan.jitter.length > 0,
  grayscale: (plan) => plan.grayscale,
  blur: (plan) => plan.blur !== null,
  solarize: (plan) => plan.solarize,
};

function compareOccurrences({ check, golden, name, plans, recorded }: Subject): void {
  for (const [what, happened] of Object.entries(occurrences)) {
    const tensor = `outputs.${name}.${what}`;
    const flags = golden.u8(tensor);
    const theirs = shareOf(Array.from(flags), (flag) => flag === 1);
    sameShare(check, tensor, shareOf(plans, happened), theirs);
    const read = recorded.map((plan) => Number(happened(plan)));
    check.equal(`${tensor} as read`, read.join(""), flags.join(""));
    check.covered(tensor);
  }
}

function compareBoxes(
  { check, golden, name, role, photo, crops, plans, recorded }: Subject,
  summary: Summary,
): void {
  const prefix = `outputs.${name}`;
  const { scale } = role === 2 ? crops.local : crops.global;
  const isPossible = (plan: CropPlan): boolean =>
    isPossibleBox(plan.box, photo, scale, crops.aspect);
  check.holds(`${prefix}.box`, recorded.every(isPossible), "a recorded box cannot be drawn");
  check.holds(`${prefix}.box`, plans.every(isPossible), "a box of ours cannot be drawn");
  const features: Readonly<Record<string, (plan: CropPlan) => number>> = {
    area: ({ box }) => (box.height * box.width) / (photo.height * photo.width),
    "log aspect": ({ box }) => Math.log(box.width / box.height),
    top: ({ box }) => box.top / Math.max(1, photo.height - box.height),
    left: ({ box }) => box.left / Math.max(1, photo.width - box.width),
  };
  for (const [what, feature] of Object.entries(features)) {
    sameAs(check, `${prefix} ${what}`, plans.map(feature), recorded.map(feature));
  }
  check.covered(`${prefix}.box`);
  for (const [which, feature, range] of [
    ["area_hist", "area", summary.area_hist_range],
    ["log_aspect_hist", "log aspect", summary.log_aspect_hist_range],
  ] as const) {
    const counts = golden.i32(`${prefix}.${which}`);
    const values = plans.map(features[feature] as (plan: CropPlan) => number);
    const ours = histogramOf(values, counts.length, range);
    sameHistogram(check, `${prefix}.${which}`, ours, { counts, n: recorded.length });
    check.covered(`${prefix}.${which}`);
  }
}

/** Mean and deviation of a feature, ours against a recorded sample of it. */
function sameAs(
  check: Check,
  what: string,
  ours: readonly number[],
  theirs: readonly number[],
): void {
  if (theirs.length === 0) {
    check.equal(`${what} count`, ours.length, 0);
    return;
  }
  const { mean, std } = momentsOf(theirs);
  sameMoments(check, what, momentsOf(ours), ours.length, { mean, std, n: theirs.length });
}

function factorsOf(plans: readonly CropPlan[], op: string): number[] {
  return plans.flatMap(({ jitter }) => jitter.find((step) => step.op === op)?.factor ?? []);
}

function compareJitter({ check, name, crops, plans, recorded }: Subject): void {
  const prefix = `outputs.${name}`;
  const jittered = (of: readonly CropPlan[]) => of.filter(({ jitter }) => jitter.length > 0);
  for (const op of jitterOps) {
    const theirs = factorsOf(recorded, op);
    sameAs(check, `${prefix}.jitter_factor ${op}`, factorsOf(plans, op), theirs);
    const [low, high] = rangeOf(crops, op);
    check.holds(
      `${prefix}.jitter_factor ${op}`,
      theirs.every((factor) => low - 1e-6 <= factor && factor <= high + 1e-6),
      `a recorded factor lies outside ${low} to ${high}`,
    );
  }
  /** Which operation comes at which place. */
  const places = (of: readonly CropPlan[]) =>
    jitterOps.flatMap((op) =>
      [0, 1, 2, 3].map((place) => shareOf(jittered(of), ({ jitter }) => jitter[place]?.op === op)),
    );
  sameShares(check, `${prefix}.jitter_order`, places(plans), places(recorded));
  check.covered(`${prefix}.jitter_factor`, `${prefix}.jitter_order`);
}

function rangeOf(crops: RunSpec["crops"], op: (typeof jitterOps)[number]): [number, number] {
  const strength = crops.color[op];
  return op === "hue" ? [-strength, strength] : [Math.max(0, 1 - strength), 1 + strength];
}

function sigmasOf(plans: readonly CropPlan[]): number[] {
  return plans.flatMap(({ blur }) => blur?.sigma ?? []);
}

function compareSigmas({ check, name, crops, plans, recorded }: Subject): void {
  const tensor = `outputs.${name}.blur_sigma`;
  const theirs = sigmasOf(recorded);
  sameAs(check, tensor, sigmasOf(plans), theirs);
  const [low, high] = crops.color.blurSigma;
  const isInRange = (sigma: number): boolean => low - 1e-6 <= sigma && sigma <= high + 1e-6;
  check.holds(tensor, theirs.every(isInRange), `a recorded sigma lies outside ${low} to ${high}`);
  check.covered(tensor);
}

/** The larger sample, of which only summaries are recorded. */
function compareMore({ check, name, crops, plans }: Subject, theirs: More, draws: number): void {
  for (const [what, happened] of Object.entries(occurrences)) {
    const share = theirs[what as keyof Pooled];
    sameShare(check, `${name} ${what}, more draws`, shareOf(plans, happened), { share, n: draws });
  }
  const n = draws * theirs.jitter;
  const jittered = plans.filter(({ jitter }) => jitter.length > 0);
  jitterOps.forEach((op, i) => {
    const factors = factorsOf(plans, op);
    const what = `${name} ${op}, more draws`;
    const mean = theirs.jitter_factor_mean[i] as number;
    sameMoments(check, what, momentsOf(factors), factors.length, { mean, n });
    const first = shareOf(jittered, ({ jitter }) => jitter[0]?.op === op);
    const share = theirs.jitter_first_operation_share[i] as number;
    sameShare(check, `${what}, first`, first, { share, n });
    const [low, high] = rangeOf(crops, op);
    // The ends of a uniform sample lie within ten mean distances of the range's, but for one in 20,000.
    const gap = (10 * (high - low)) / n + 1e-4;
    const ends = [theirs.jitter_factor_min[i] as number, theirs.jitter_factor_max[i] as number];
    check.close(`${what}, ends`, [low, high], ends, () => gap);
  });
  const sigmas = sigmasOf(plans);
  if (theirs.blur_sigma_mean_std === null) {
    check.equal(`${name} sigmas, more draws`, sigmas.length, 0);
    return;
  }
  const [mean, std] = theirs.blur_sigma_mean_std;
  const sample = { mean, std, n: draws * theirs.blur };
  sameMoments(check, `${name} sigma, more draws`, momentsOf(sigmas), sigmas.length, sample);
}

/** Mean and deviation of the normalised output, per channel. */
function compareOutputs(subject: Subject): void {
  const { golden, check, photo, crops, name, role, plans, recorded } = subject;
  const { size } = role === 2 ? crops.local : crops.global;
  const theirs = ["channel_mean", "channel_std"].map((what) =>
    golden.f32(`outputs.${name}.${what}`),
  ) as [Float32Array, Float32Array];
  recorded.slice(0, numReplays).forEach((plan, draw) => {
    const levels = distorted(cutOut(photo, plan, size), size, plan);
    const ours = channelMoments(levels, crops);
    const { mean } = pipelineLimits(plan);
    const allowed = mean / (255 * Math.min(...crops.std));
    [ours.mean, ours.std].forEach((values, i) => {
      const wanted = (theirs[i] as Float32Array).subarray(3 * draw, 3 * draw + 3);
      check.close(`outputs.${name} output ${draw}`, values, wanted, () => allowed);
    });
  });
  const own = plans
    .slice(0, numCrops)
    .map((plan) => channelMoments(renderCrop(photo, plan, size).slice(0, size * size * 3), crops));
  (["mean", "std"] as const).forEach((which, i) => {
    const tensor = `outputs.${name}.channel_${which}`;
    for (let c = 0; c < 3; c++) {
      const mine = own.map((moments) => moments[which][c] as number);
      const other = Array.from(theirs[i] as Float32Array).filter((_, k) => k % 3 === c);
      const { mean } = momentsOf(other);
      sameMoments(check, `${tensor} ${c}`, momentsOf(mine), mine.length, { mean, n: other.length });
    }
    check.covered(tensor);
  });
}

function channelMoments(
  levels: Float32Array,
  norm: RunSpec["crops"],
): { mean: number[]; std: number[] } {
  const out = new Float32Array(levels.length);
  normalize(levels, levels.length, 3, norm, out, 0);
  const moments = [0, 1, 2].map((c) => momentsOf(out.filter((_, i) => i % 3 === c)));
  return { mean: moments.map(({ mean }) => mean), std: moments.map(({ std }) => std) };
}
