import { blurProbabilitiesOf, type Rng, rngOf } from "@paddock/contract";
import { expect, test } from "vitest";
import { greySpec, officialSpec } from "../testing/spec.js";
import { drawBox, drawCrop, drawOffset, roleOf } from "./plan.js";

const photo = { width: 451, height: 300 };
const { crops } = officialSpec();

test("an image too thin for any box gives the central crop of the nearest aspect ratio", () => {
  const box = drawBox(rngOf(1), { width: 400, height: 60 }, [0.32, 1], crops.aspect);
  expect(box).toEqual({ top: 0, left: 160, height: 60, width: 80 });
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
    expect(plan.blur === null).toBe(i % 4 === 1);
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

test("blur happens as often as the official code or the paper says, with the kernel of the spec", () => {
  for (const blur of ["official", "paper"] as const) {
    for (const blurKernel of ["kernel9", "pillow"] as const) {
      const color = { ...crops.color, blur, blurKernel };
      for (const role of [0, 1, 2] as const) {
        const plans = Array.from({ length: 400 }, (_, i) =>
          drawCrop(rngOf(5, role, i), photo, role, { ...crops, color }),
        );
        const blurs = plans.flatMap((plan) => plan.blur ?? []);
        const wanted = blurProbabilitiesOf(color)[role];
        const error = Math.sqrt((wanted * (1 - wanted)) / plans.length);
        expect(Math.abs(blurs.length / plans.length - wanted)).toBeLessThanOrEqual(4 * error);
        expect(blurs.every(({ kernel }) => kernel === blurKernel)).toBe(true);
      }
    }
  }
});

test("crops that share the jitter draw none of their own", () => {
  const plan = drawCrop(rngOf(1), photo, 0, { ...crops, shareColorJitter: true });
  expect(plan).toMatchObject({ jitter: [], grayscale: false });
});

test("local crops lie on the patch grid, at all places but the last row and column", () => {
  const rng = rngOf(2);
  const tops = new Set<number>();
  const lefts = new Set<number>();
  for (let i = 0; i < 400; i++) {
    const { top, left } = drawOffset(rng, { global: 224, local: 96 }, 16);
    tops.add(top);
    lefts.add(left);
  }
  const places = [0, 16, 32, 48, 64, 80, 96, 112];
  expect([...tops].sort((a, b) => a - b)).toEqual(places);
  expect([...lefts].sort((a, b) => a - b)).toEqual(places);
});
