import { rngOf } from "@paddock/contract";
import { type Box, drawBox } from "@paddock/data";
import { isPossibleBox } from "../augment/plans.js";
import {
  histogramOf,
  momentsOf,
  sameHistogram,
  sameMoments,
  sameShare,
  shareOf,
} from "../augment/statistics.js";
import type { Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

interface Case {
  readonly area_mean_std: [number, number];
  readonly log_aspect_mean_std: [number, number];
  readonly top_fraction_mean: number;
  readonly full_height_share: number;
  readonly full_width_share: number;
  readonly area_hist_range: [number, number];
  readonly log_aspect_hist_range: [number, number];
}

/** Enough that the recorded sample's own errors decide. */
const numBoxes = 40_000;

/**
 * Where crops lie. Boxes of torch's generator cannot be drawn again: those recorded (first100) must be possible under Paddock's rules, and
 * Paddock's own must be distributed as all recorded ones are.
 */
export const augmentCropBoxes: Kind = {
  name: "augment crop boxes",
  matches: (golden) =>
    golden.config.cases !== undefined &&
    golden.names("outputs.").some((name) => name.endsWith(".area_hist")),
  run(golden, check) {
    const { n, ratio, cases } = golden.config as {
      n: number;
      ratio: [number, number];
      cases: Record<string, Case>;
    };
    for (const [name, recorded] of Object.entries(cases)) {
      const match = /^(\d+)x(\d+)\.scale([\d.]+)_([\d.]+)$/.exec(name);
      if (!match) throw new RangeError(`expected HxW.scaleA_B, received ${name}`);
      const [height, width, low, high] = match.slice(1).map(Number) as [
        number,
        number,
        number,
        number,
      ];
      const rng = rngOf(5, height, width, Math.round(1000 * low));
      const image = { height, width };
      const drawn = Array.from({ length: numBoxes }, () => drawBox(rng, image, [low, high], ratio));
      compareMoments(check, name, drawn, image, recorded, n);
      compareHistograms(golden, check, name, drawn, image, recorded, n);
      const first = `outputs.${name}.first100`;
      if (!golden.has(first)) continue;
      const known = boxesOf(golden.i32(first));
      for (const box of [...known, ...drawn.slice(0, 1000)]) {
        check.holds(
          first,
          isPossibleBox(box, image, [low, high], ratio),
          `${JSON.stringify(box)} cannot be drawn from ${name}`,
        );
      }
      check.covered(first);
    }
  },
};

function boxesOf(values: Int32Array): Box[] {
  return Array.from({ length: values.length / 4 }, (_, i) => {
    const [top, left, height, width] = values.subarray(4 * i) as unknown as [
      number,
      number,
      number,
      number,
    ];
    return { top, left, height, width };
  });
}

interface Size {
  readonly height: number;
  readonly width: number;
}

function compareMoments(
  check: Check,
  name: string,
  drawn: readonly Box[],
  { height, width }: Size,
  recorded: Case,
  n: number,
): void {
  const same = (what: string, values: number[], [mean, std]: [number, number?]): void =>
    sameMoments(check, `${name} ${what}`, momentsOf(values), numBoxes, {
      mean,
      n,
      ...(std === undefined ? {} : { std }),
    });
  same("area", drawn.map(areaIn({ height, width })), recorded.area_mean_std);
  same("log aspect", drawn.map(logAspect), recorded.log_aspect_mean_std);
  const room = (box: Box): number => box.top / Math.max(1, height - box.height);
  same("top", drawn.map(room), [recorded.top_fraction_mean]);
  const fullHeight = shareOf(drawn, (box) => box.height === height);
  sameShare(check, `${name} full height`, fullHeight, { share: recorded.full_height_share, n });
  const fullWidth = shareOf(drawn, (box) => box.width === width);
  sameShare(check, `${name} full width`, fullWidth, { share: recorded.full_width_share, n });
  const left = (box: Box): number => box.left / Math.max(1, width - box.width);
  // Nothing is recorded of it; in a square it is distributed as the top is.
  if (height === width) {
    same("left", drawn.map(left), [recorded.top_fraction_mean]);
  }
}

function compareHistograms(
  golden: Golden,
  check: Check,
  name: string,
  drawn: readonly Box[],
  size: Size,
  recorded: Case,
  n: number,
): void {
  const both = [
    ["area_hist", drawn.map(areaIn(size)), recorded.area_hist_range],
    ["log_aspect_hist", drawn.map(logAspect), recorded.log_aspect_hist_range],
  ] as const;
  for (const [which, values, range] of both) {
    const tensor = `outputs.${name}.${which}`;
    const counts = golden.i32(tensor);
    sameHistogram(check, tensor, histogramOf(values, counts.length, range), { counts, n });
    check.covered(tensor);
  }
}

function areaIn(image: Size): (box: Box) => number {
  return ({ height, width }) => (height * width) / (image.height * image.width);
}

function logAspect({ height, width }: Box): number {
  return Math.log(width / height);
}
