import { type Rng, rngOf } from "@paddock/contract";
import { expect, test } from "vitest";
import { goldenImage, readGolden } from "../testing/golden.js";
import { greySpec, officialSpec } from "../testing/spec.js";
import { normalize } from "./color.js";
import { renderCrop } from "./crops.js";
import { type Box, type CropPlan, drawBox, drawCrop, jitterOps, roleOf } from "./plan.js";

const photo = goldenImage(readGolden("photo"), "inputs.photo");
const { crops } = officialSpec();

/** A moment of many draws: mean, and its standard error. */
function moment(values: readonly number[]): { mean: number; error: number; std: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return { mean, std: Math.sqrt(variance), error: Math.sqrt(variance / values.length) };
}

/** Four standard errors of both samples together. */
function expectClose(ours: number, theirs: number, ourError: number, theirError: number): void {
  expect(Math.abs(ours - theirs)).toBeLessThanOrEqual(4 * Math.hypot(ourError, theirError) + 1e-12);
}

function expectSameShare(ours: number, ourDraws: number, theirs: number, draws: number): void {
  const share = (ours * ourDraws + theirs * draws) / (ourDraws + draws);
  const variance = share * (1 - share);
  expectClose(ours, theirs, Math.sqrt(variance / ourDraws), Math.sqrt(variance / draws));
}

/** Mean and deviation of one of three channels. */
function channelMoment(pixels: Float32Array, channel: number): { mean: number; std: number } {
  let [sum, squares] = [0, 0];
  for (let i = channel; i < pixels.length; i += 3) {
    const value = pixels[i] as number;
    sum += value;
    squares += value * value;
  }
  const mean = (3 * sum) / pixels.length;
  return { mean, std: Math.sqrt((3 * squares) / pixels.length - mean ** 2) };
}

const boxes = readGolden("crop_boxes");
const { n, cases } = boxes.meta("config") as {
  n: number;
  cases: Record<
    string,
    {
      area_mean_std: [number, number];
      log_aspect_mean_std: [number, number];
      top_fraction_mean: number;
      full_height_share: number;
    }
  >;
};

test.each(Object.keys(cases))("boxes of %s are distributed as torchvision's", (name) => {
  const [, height, width, low, high] = (
    /^(\d+)x(\d+)\.scale([\d.]+)_([\d.]+)$/.exec(name) ?? []
  ).map(Number) as [number, number, number, number, number];
  const rng = rngOf(5, height, width);
  const drawn = Array.from({ length: n }, () =>
    drawBox(rng, { width, height }, [low, high], crops.aspect),
  );
  for (const box of drawn) expectInside(box, width, height);
  const theirs = cases[name] as (typeof cases)[string];
  const area = moment(drawn.map((box) => (box.height * box.width) / (height * width)));
  const aspect = moment(drawn.map((box) => Math.log(box.width / box.height)));
  const room = drawn.filter((box) => box.height < height);
  const top = moment(room.map((box) => box.top / (height - box.height)));
  const root = Math.sqrt(n);
  expectClose(area.mean, theirs.area_mean_std[0], area.error, theirs.area_mean_std[1] / root);
  expect(area.std).toBeCloseTo(theirs.area_mean_std[1], 2);
  expectClose(
    aspect.mean,
    theirs.log_aspect_mean_std[0],
    aspect.error,
    theirs.log_aspect_mean_std[1] / root,
  );
  expect(aspect.std).toBeCloseTo(theirs.log_aspect_mean_std[1], 1);
  if (room.length > 0) expect(Math.abs(top.mean - 0.5)).toBeLessThanOrEqual(4 * top.error);
  const fullHeight = 1 - room.length / n;
  expectSameShare(fullHeight, n, theirs.full_height_share, n);
  expectSameHistogram(drawn, `outputs.${name}`, width * height);
});

function expectInside({ top, left, height, width }: Box, fullWidth: number, fullHeight: number) {
  const isInside =
    top >= 0 &&
    left >= 0 &&
    height > 0 &&
    width > 0 &&
    top + height <= fullHeight &&
    left + width <= fullWidth;
  expect(isInside).toBe(true);
}

function expectSameHistogram(drawn: readonly Box[], name: string, imageArea: number): void {
  const theirs = boxes.values(`${name}.area_hist`);
  const bins = theirs.length;
  const ours = new Array<number>(bins).fill(0);
  for (const { height, width } of drawn) {
    const bin = Math.min(bins - 1, Math.floor(((height * width) / imageArea) * bins));
    ours[bin] = (ours[bin] as number) + 1;
  }
  for (let bin = 0; bin < bins; bin++) {
    expectSameShare((ours[bin] as number) / n, n, (theirs[bin] as number) / n, n);
  }
}

test("an image too thin for any box gives the recorded central crop", () => {
  const first = boxes.values("outputs.60x400.scale0.32_1.0.first100");
  const box = drawBox(rngOf(1), { width: 400, height: 60 }, [0.32, 1], crops.aspect);
  expect([box.top, box.left, box.height, box.width]).toEqual([...first.subarray(0, 4)]);
});

const stats = readGolden("stats_dinov2");
const more = stats.meta("fractions_over_more_draws") as { draws: number } & Record<
  string,
  {
    flip: number;
    jitter: number;
    grayscale: number;
    blur: number;
    solarize: number;
    blur_sigma_mean_std: [number, number] | null;
    jitter_factor_mean: [number, number, number, number];
    jitter_first_operation_share: [number, number, number, number];
  }
>;
const numPlans = 4000;
const roles = [
  ["global1", 0],
  ["global2", 1],
  ["local", 2],
] as const;

function plansOf(role: 0 | 1 | 2): CropPlan[] {
  return Array.from({ length: numPlans }, (_, i) =>
    drawCrop(rngOf(3, role, i), photo, role, crops),
  );
}

test.each(roles)("%s: operations happen as often as in the official pipeline", (name, role) => {
  const plans = plansOf(role);
  const share = (claim: (plan: CropPlan) => boolean) => plans.filter(claim).length / numPlans;
  const theirs = more[name] as (typeof more)[string];
  const same = (ours: number, recorded: number) =>
    expectSameShare(ours, numPlans, recorded, more.draws);
  same(
    share((plan) => plan.flip),
    theirs.flip,
  );
  same(
    share((plan) => plan.jitter.length > 0),
    theirs.jitter,
  );
  same(
    share((plan) => plan.grayscale),
    theirs.grayscale,
  );
  same(
    share((plan) => plan.blurSigma !== null),
    theirs.blur,
  );
  same(
    share((plan) => plan.solarize),
    theirs.solarize,
  );
});

test.each(roles)(
  "%s: factors and order of the jitter, and sigma, are distributed alike",
  (name, role) => {
    const plans = plansOf(role);
    const theirs = more[name] as (typeof more)[string];
    const jittered = plans.filter((plan) => plan.jitter.length > 0);
    jitterOps.forEach((op, i) => {
      const factors = jittered.map(
        (plan) => plan.jitter.find((step) => step.op === op)?.factor ?? Number.NaN,
      );
      const { mean, error, std } = moment(factors);
      const theirError = std / Math.sqrt(more.draws * theirs.jitter);
      expectClose(mean, theirs.jitter_factor_mean[i] as number, error, theirError);
      const strength = crops.color[op];
      const center = op === "hue" ? 0 : 1;
      expect(Math.min(...factors)).toBeGreaterThanOrEqual(center - strength);
      expect(Math.max(...factors)).toBeLessThanOrEqual(center + strength);
      const first = jittered.filter((plan) => plan.jitter[0]?.op === op).length / jittered.length;
      const recorded = theirs.jitter_first_operation_share[i] as number;
      expectSameShare(first, jittered.length, recorded, more.draws * theirs.jitter);
    });
    const sigmas = plans.flatMap((plan) => (plan.blurSigma === null ? [] : [plan.blurSigma]));
    if (theirs.blur_sigma_mean_std === null) return expect(sigmas).toHaveLength(0);
    const sigma = moment(sigmas);
    const [mean, std] = theirs.blur_sigma_mean_std;
    expectClose(sigma.mean, mean, sigma.error, std / Math.sqrt(more.draws * theirs.blur));
  },
);

test.each(roles)("%s: pixels of the output have the recorded mean and deviation", (name, role) => {
  const size = role === 2 ? 96 : 224;
  const numCrops = role === 2 ? 60 : 24;
  const means: number[][] = [[], [], []];
  const deviations: number[][] = [[], [], []];
  const out = new Float32Array(size * size * 3);
  for (let i = 0; i < numCrops; i++) {
    const plan = drawCrop(rngOf(8, role, i), photo, role, crops);
    normalize(renderCrop(photo, plan, size), out.length, 3, crops, out, 0);
    for (let c = 0; c < 3; c++) {
      const channel = channelMoment(out, c);
      means[c]?.push(channel.mean);
      deviations[c]?.push(channel.std);
    }
  }
  const compare = (ours: readonly number[][], tensor: string) => {
    const recorded = stats.values(`outputs.${name}.${tensor}`);
    ours.forEach((values, c) => {
      const mine = moment(values);
      const theirs = moment([...recorded].filter((_, k) => k % 3 === c));
      expectClose(mine.mean, theirs.mean, mine.error, theirs.error);
    });
  };
  compare(means, "channel_mean");
  compare(deviations, "channel_std");
});

test("strength 0 leaves an operation out, probability 0 never happens, probability 1 always does", () => {
  const spec = greySpec();
  const always: typeof spec.crops = {
    ...spec.crops,
    flipProbability: 1,
    color: {
      ...spec.crops.color,
      jitterProbability: 1,
      hue: 0,
      saturation: 0,
      grayscaleProbability: 0,
      blurProbabilities: [1, 0, 1],
    },
  };
  for (let i = 0; i < 200; i++) {
    const plan = drawCrop(rngOf(i), photo, roleOf(i % 4), always);
    expect(plan.jitter.map((step) => step.op).sort()).toEqual(["brightness", "contrast"]);
    expect([plan.flip, plan.grayscale]).toEqual([true, false]);
    expect(plan.blurSigma === null).toBe(i % 4 === 1);
  }
});

test("contrast above 1 never asks for a negative factor", () => {
  const wild = { ...crops, color: { ...crops.color, jitterProbability: 1, contrast: 3 } };
  const rng: Rng = rngOf(4);
  const factors = Array.from({ length: 300 }, () =>
    drawCrop(rng, photo, 0, wild).jitter.find((step) => step.op === "contrast"),
  ).map((step) => step?.factor ?? -1);
  expect(Math.min(...factors)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...factors)).toBeGreaterThan(3);
});
