/** Single operations with fixed factors. Limits in levels of 255; whatever an operation rounds or cuts is rounded or cut here, too. */
import {
  applyJitter,
  blur,
  gaussianTaps,
  type Image,
  type JitterOp,
  jitterOps,
  normalize,
  pillowBlur,
  resizeBox,
  solarize,
  turnGrey,
  wholeOf,
  withChannels,
} from "@paddock/data";
import { cut, jittered, unroundedMean } from "../augment/eight-bits.js";
import {
  channelsLast,
  compareLevels,
  imageOf,
  type Limits,
  meanDistance,
} from "../augment/images.js";
import type { Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

const exact: Limits = { max: 0, mean: 0 };
/** What rounding a float to 8 bits may change, and single precision. */
const rounding: Limits = { max: 0.501, mean: 0.3 };
const imageNet = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

export const augmentOps: Kind = {
  name: "augment operations",
  matches: (golden) =>
    golden.has("inputs.image") && golden.names("outputs.").some((name) => operationOf(name)),
  run(golden, check) {
    const names = golden.names("outputs.");
    for (const name of names) {
      const operation = operationOf(name);
      if (!operation) continue; // the check reports it as compared with nothing
      operation.compare({ golden, check, name, parts: operation.parts });
      check.covered(name);
    }
    if (golden.has("outputs.grayscale")) {
      // Of one channel: Pillow's integers, to the last bit.
      const grey = withChannels(imageOf(golden, "inputs.image"), 1).pixels;
      const wanted = golden.u8("outputs.grayscale").filter((_, i) => i % 3 === 0);
      check.close("one channel of the luma", grey, wanted, () => 0);
    }
  },
};

interface Comparison {
  readonly golden: Golden;
  readonly check: Check;
  readonly name: string;
  /** What the name says, e.g. a factor. */
  readonly parts: readonly string[];
}

type Compare = (comparison: Comparison) => void;

/** `.tensor`: the same by torchvision's tensor path, with the same limits: both are about 8 bits. */
const operations: readonly (readonly [RegExp, Compare])[] = [
  [/^(brightness|contrast|saturation|hue)\.([-\d.]+?)(\.tensor)?$/, compareJitter],
  [/^jitter_chain\.([a-z_]+)(\.tensor)?$/, compareChain],
  [/^grayscale(\.tensor)?$/, compareGrey],
  [/^solarize\.threshold(\d+)(?:\.tensor)?$/, compareSolarize],
  [/^hflip(?:\.tensor)?$/, compareFlip],
  [/^kernel1d\.sigma([\d.]+)$/, compareKernel],
  [/^gaussian_blur(_tiny)?\.sigma([\d.]+?)(\.float)?$/, compareBlur],
  [/^pil_gaussian_blur\.radius([\d.]+)$/, comparePillowBlur],
  [/^normalized(_tiny)?$/, compareNormalized],
];

function operationOf(tensor: string): { compare: Compare; parts: string[] } | undefined {
  for (const [pattern, compare] of operations) {
    const match = pattern.exec(tensor.slice("outputs.".length));
    if (match) return { compare, parts: match.slice(1) };
  }
  return undefined;
}

function inputOf({ golden }: Comparison, isTiny: boolean): Image {
  return imageOf(golden, isTiny ? "inputs.tiny" : "inputs.image");
}

function changed(image: Image, change: (levels: Float32Array) => void): Float32Array {
  const levels = Float32Array.from(image.pixels);
  change(levels);
  return levels;
}

/** Contrast and saturation blend with luma, which Pillow rounds and torchvision's tensor path cuts: half a level and one level at most. */
function jitterLimits(op: JitterOp, factor: number, isTensor: boolean): Limits {
  const ofLuma = { max: 1, mean: (isTensor ? 1 : 0.5) * Math.abs(1 - factor) + 0.1 };
  const limits: Readonly<Record<JitterOp, Limits>> = {
    brightness: exact,
    contrast: ofLuma,
    saturation: ofLuma,
    hue: isTensor ? { max: 1, mean: 0.5 } : { max: 8, mean: 2 }, // Pillow: through 8-bit HSV
  };
  return limits[op];
}

function compareJitter(comparison: Comparison): void {
  const { golden, check, name, parts } = comparison;
  const [op, text, tensor] = parts as [JitterOp, string, string | undefined];
  const factor = Number(text);
  const image = inputOf(comparison, false);
  const levels = Float32Array.from(image.pixels);
  const limits = jitterLimits(op, factor, tensor !== undefined);
  if (op === "brightness") {
    compareLevels(check, name, jittered(levels, { op, factor }), golden.u8(name), limits);
    return;
  }
  const ours = changed(image, (all) => applyJitter(all, all.length, 3, [{ op, factor }]));
  compareLevels(check, name, cut(ours), golden.u8(name), limits);
  if (op !== "hue" || tensor) return;
  // Nearer still where the turn is one that Pillow can make.
  const whole = jittered(levels, { op, factor });
  compareLevels(check, `${name} (whole)`, whole, golden.u8(name), { max: 8, mean: 1 });
}

function compareChain(comparison: Comparison): void {
  const { golden, check, name, parts } = comparison;
  const factors = golden.metadata<Record<JitterOp, number>>("jitter_chain_factors");
  const steps = (parts[0] as string).split("_").map((op) => {
    const known = jitterOps.find((candidate) => candidate === op);
    if (!known) throw new RangeError(`${name}: expected ${jitterOps.join(", ")}, received ${op}`);
    return { op: known, factor: factors[known] };
  });
  const start = Float32Array.from(inputOf(comparison, false).pixels);
  const inSteps = (order: typeof steps): Float32Array =>
    order.reduce<Float32Array>((levels, step) => {
      if (!parts[1]) return jittered(levels, step);
      const current = levels.slice();
      applyJitter(current, current.length, 3, [step]);
      return cut(current);
    }, start);
  const wanted = golden.u8(name);
  const ours = inSteps(steps);
  compareLevels(check, name, ours, wanted, { max: 8, mean: 1 });
  check.holds(
    `${name} (order)`,
    meanDistance(inSteps(steps.toReversed()), wanted) > 2 * meanDistance(ours, wanted),
    "the reverse order fits nearly as well, so the comparison says nothing about it",
  );
  if (parts[1]) return;
  const atOnce = changed(inputOf(comparison, false), (levels) =>
    applyJitter(levels, levels.length, 3, steps),
  );
  const mean = meanDistance(atOnce, wanted);
  check.close(`${name} (never rounded)`, [mean], [0], () => unroundedMean({ jitter: steps }));
}

function compareGrey(comparison: Comparison): void {
  const { golden, check, name, parts } = comparison;
  const ours = changed(inputOf(comparison, false), (levels) => turnGrey(levels, levels.length, 3));
  // Pillow rounds. torchvision's tensor path cuts, and its weights have four digits.
  if (parts[0]) compareLevels(check, name, cut(ours), golden.u8(name), { max: 1, mean: 0.1 });
  else compareLevels(check, name, ours, golden.u8(name), rounding);
}

function compareSolarize(comparison: Comparison): void {
  const { golden, check, name, parts } = comparison;
  const ours = changed(inputOf(comparison, false), (levels) =>
    solarize(levels, levels.length, Number(parts[0])),
  );
  compareLevels(check, name, ours, golden.u8(name), exact);
}

function compareFlip(comparison: Comparison): void {
  const { golden, check, name } = comparison;
  const image = inputOf(comparison, false);
  const { height, width } = image;
  const ours = new Float32Array(image.pixels.length);
  const box = { top: 0, left: 0, height, width };
  resizeBox(image, box, wholeOf(height), wholeOf(width), true, ours);
  compareLevels(check, name, ours, golden.u8(name), exact);
}

function compareKernel({ golden, check, name, parts }: Comparison): void {
  const [w0, w1, w2, w3, w4] = gaussianTaps(Number(parts[0]));
  check.close(name, [w4, w3, w2, w1, w0, w1, w2, w3, w4], golden.f32(name), () => 1e-7);
}

function compareBlur(comparison: Comparison): void {
  const { golden, check, name, parts } = comparison;
  const [tiny, sigma, isFloat] = parts;
  const image = inputOf(comparison, tiny !== undefined);
  const ours = changed(image, (levels) => blur(levels, image, 3, Number(sigma)));
  if (isFloat) {
    const wanted = channelsLast(golden.f32(name), golden.shape(name));
    check.close(name, ours, wanted, () => 1e-4);
  } else {
    compareLevels(check, name, ours, golden.u8(name), rounding);
  }
}

function comparePillowBlur(comparison: Comparison): void {
  const { golden, check, name, parts } = comparison;
  const image = inputOf(comparison, false);
  const ours = changed(image, (levels) => pillowBlur(levels, image, 3, Number(parts[0])));
  const rounded = ours.map((level) => Math.round(level));
  compareLevels(check, name, rounded, golden.u8(name), { max: 1, mean: 0.01 });
}

function compareNormalized(comparison: Comparison): void {
  const { golden, check, name, parts } = comparison;
  const image = inputOf(comparison, parts[0] !== undefined);
  const { mean, std } = { ...imageNet, ...golden.config };
  const ours = new Float32Array(image.pixels.length);
  const levels = Float32Array.from(image.pixels);
  normalize(levels, levels.length, 3, { mean, std }, ours, 0);
  const wanted = channelsLast(golden.f32(name), golden.shape(name));
  check.close(name, ours, wanted, () => 2e-6);
}
