import { expect, test } from "vitest";
import { channelsLast, distance, goldenImage, readGolden } from "../testing/golden.js";
import { blur, gaussianTaps, reflected } from "./blur.js";
import { applyJitter, normalize, solarize, turnGrey } from "./color.js";
import type { Jitter, JitterOp } from "./plan.js";

const golden = readGolden("ops");
const image = goldenImage(golden, "inputs.image");
const tiny = goldenImage(golden, "inputs.tiny");
const elements = image.pixels.length;

function changed(change: (levels: Float32Array) => void, from = image): Float32Array {
  const levels = Float32Array.from(from.pixels);
  change(levels);
  return levels;
}

/** Pillow's enhancers cut the fraction off; the small term absorbs single-precision noise just below a whole number. */
function truncated(levels: Float32Array): Float32Array {
  return levels.map((level) => Math.floor(level + 1e-3));
}

const tolerances: Readonly<Record<JitterOp, { max: number; mean: number }>> = {
  brightness: { max: 0, mean: 0 },
  contrast: { max: 1, mean: 0.2 },
  saturation: { max: 1, mean: 0.2 },
  hue: { max: 8, mean: 1 }, // Pillow goes through 8-bit HSV
};

test.each([
  ...["brightness.0.6", "brightness.0.85", "brightness.1.4", "contrast.0.6", "contrast.1.15"],
  ...["contrast.1.4", "saturation.0.8", "saturation.0.93", "saturation.1.2"],
  ...["hue.-0.1", "hue.-0.03", "hue.0.05", "hue.0.1"],
])("%s agrees with Pillow", (name) => {
  const dot = name.indexOf(".");
  const op = name.slice(0, dot) as JitterOp;
  const factor = Number(name.slice(dot + 1));
  const ours = changed((levels) => applyJitter(levels, elements, 3, [{ op, factor }]));
  const { max, mean } = distance(truncated(ours), golden.values(`outputs.${name}`));
  expect(max).toBeLessThanOrEqual(tolerances[op].max);
  expect(mean).toBeLessThanOrEqual(tolerances[op].mean);
});

test.each(["brightness_contrast_saturation_hue", "hue_saturation_contrast_brightness"])(
  "the jitter chain %s keeps its order",
  (chain) => {
    const factors = golden.meta("jitter_chain_factors") as Record<JitterOp, number>;
    const jitter = (chain.split("_") as JitterOp[]).map((op) => ({ op, factor: factors[op] }));
    const wanted = golden.values(`outputs.jitter_chain.${chain}`);
    /** In steps, as Pillow: 8 bits after each. */
    const inSteps = (steps: Jitter) =>
      steps.reduce<Float32Array>((levels, step) => {
        applyJitter(levels, elements, 3, [step]);
        return truncated(levels);
      }, Float32Array.from(image.pixels));
    const found = distance(inSteps(jitter), wanted);
    expect(found.max).toBeLessThanOrEqual(8); // hue goes through 8-bit HSV
    expect(found.mean).toBeLessThanOrEqual(1);
    expect(distance(inSteps(jitter.toReversed()), wanted).mean).toBeGreaterThan(2 * found.mean);
    // Without any rounding: half a level for each of the four truncations.
    const atOnce = changed((levels) => applyJitter(levels, elements, 3, jitter));
    expect(distance(atOnce, wanted).mean).toBeLessThanOrEqual(2);
  },
);

test("grey is the luma, rounded by Pillow", () => {
  const ours = changed((levels) => turnGrey(levels, elements, 3));
  expect(distance(ours, golden.values("outputs.grayscale")).max).toBeLessThanOrEqual(0.501);
});

test("solarisation is exact", () => {
  const ours = changed((levels) => solarize(levels, elements));
  expect(distance(ours, golden.values("outputs.solarize.threshold128")).max).toBe(0);
});

test.each([
  ["0.1", 0.1],
  ["0.5", 0.5],
  ["1.0", 1],
  ["2.0", 2],
])("blur with sigma %s equals torchvision's", (name, sigma) => {
  const kernel = golden.values(`outputs.kernel1d.sigma${name}`);
  const [w0, w1, w2, w3, w4] = gaussianTaps(sigma);
  expect(distance([w4, w3, w2, w1, w0, w1, w2, w3, w4], kernel).max).toBeLessThan(1e-7);

  const floats = `outputs.gaussian_blur_tiny.sigma${name}.float`;
  const small = changed((levels) => blur(levels, tiny, 3, sigma), tiny);
  const wanted = channelsLast(golden.values(floats), golden.shape(floats));
  expect(distance(small, wanted).max).toBeLessThan(1e-4);

  const large = changed((levels) => blur(levels, image, 3, sigma));
  const rounded = golden.values(`outputs.gaussian_blur.sigma${name}`);
  expect(distance(large, rounded).max).toBeLessThanOrEqual(0.501);
});

test("a line shorter than the kernel is mirrored again and again", () => {
  const line = (size: number) => [-4, -3, -2, -1, 0, 1, 2, 3, 4].map((i) => reflected(i, size));
  expect(line(1)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0]);
  expect(line(2)).toEqual([0, 1, 0, 1, 0, 1, 0, 1, 0]);
  expect(line(3)).toEqual([0, 1, 2, 1, 0, 1, 2, 1, 0]);
  expect(line(5)).toEqual([4, 3, 2, 1, 0, 1, 2, 3, 4]);
});

test("blur keeps a constant crop constant, however small", () => {
  for (const side of [1, 2, 4, 7]) {
    const levels = new Float32Array(side * side).fill(80);
    blur(levels, { height: side, width: side }, 1, 1.5);
    expect(distance(levels, new Float32Array(side * side).fill(80)).max).toBeLessThan(1e-4);
  }
});

test("one channel: saturation, hue and grey change nothing; contrast blends with the mean", () => {
  const levels = Float32Array.from([10, 20, 60]);
  applyJitter(levels, 3, 1, [
    { op: "saturation", factor: 1.2 },
    { op: "hue", factor: 0.1 },
  ]);
  turnGrey(levels, 3, 1);
  expect([...levels]).toEqual([10, 20, 60]);
  applyJitter(levels, 3, 1, [{ op: "contrast", factor: 0.5 }]);
  expect([...levels]).toEqual([20, 25, 45]);
});

test("normalisation equals to_tensor followed by ImageNet's mean and deviation", () => {
  const levels = Float32Array.from(tiny.pixels);
  const out = new Float32Array(levels.length + 2);
  const norm = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
  normalize(levels, levels.length, 3, norm, out, 2);
  const name = "outputs.normalized_tiny";
  const wanted = channelsLast(golden.values(name), golden.shape(name));
  expect(distance(out.subarray(2), wanted).max).toBeLessThan(2e-6);
});
