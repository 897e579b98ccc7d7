import { type RunSpec, rngOf, streams } from "@paddock/contract";
import { expect, test } from "vitest";
import type { Image } from "../image.js";
import { distance } from "../testing/distance.js";
import { pattern } from "../testing/images.js";
import { greySpec, officialSpec } from "../testing/spec.js";
import { makeCrops, recolored, renderGlobal } from "./crops.js";
import { drawColor, drawCrop } from "./plan.js";
import { resizeBox, wholeOf } from "./resize.js";

const photo: Image = { width: 60, height: 50, channels: 3, pixels: pattern(60, 50, 3, 1) };

const grey: Image = {
  width: 28,
  height: 28,
  channels: 1,
  pixels: Uint8Array.from({ length: 784 }, (_, i) => (i * 37) % 256),
};

test("crops have the sizes of the spec", () => {
  const spec = greySpec();
  const { global, local } = makeCrops(grey, spec, { seed: 1, position: 2 });
  expect(global.map((crop) => crop.length)).toEqual([784, 784]);
  expect(local.map((crop) => crop.length)).toEqual([196, 196, 196, 196]);
});

test("crops depend on seed and position, and on nothing else", () => {
  const spec = greySpec();
  const first = makeCrops(grey, spec, { seed: 1, position: 2 });
  makeCrops(photo, officialSpec(), { seed: 9, position: 9 }); // leaves other content in working memory
  expect(makeCrops(grey, spec, { seed: 1, position: 2 })).toEqual(first);
  expect(makeCrops(grey, spec, { seed: 1, position: 3 })).not.toEqual(first);
  expect(makeCrops(grey, spec, { seed: 2, position: 2 })).not.toEqual(first);
});

test("crops of one image differ from each other", () => {
  const spec = greySpec();
  const { global, local } = makeCrops(grey, spec, { seed: 1, position: 2 });
  const distinct = new Set([...global, ...local].map((crop) => crop.join()));
  expect(distinct.size).toBe(6);
});

test("an image of one pixel, or of one row, still gives finite crops", () => {
  const spec = greySpec();
  for (const [width, height] of [
    [1, 1],
    [300, 1],
    [1, 300],
  ] as const) {
    const image: Image = { width, height, channels: 1, pixels: new Uint8Array(300).fill(9) };
    const { global, local } = makeCrops(image, spec, { seed: 0, position: 0 });
    for (const crop of [...global, ...local]) expect(crop.every(Number.isFinite)).toBe(true);
  }
});

function withCrops(changes: Partial<RunSpec["crops"]>): RunSpec {
  const spec = officialSpec();
  const sizes = {
    global: { size: 32, scale: [0.32, 1] },
    local: { size: 16, scale: [0.05, 0.32] },
  };
  return { ...spec, crops: { ...spec.crops, ...(sizes as Partial<RunSpec["crops"]>), ...changes } };
}

/** Colours left alone. */
const plain: RunSpec["crops"]["color"] = {
  ...officialSpec().crops.color,
  jitterProbability: 0,
  grayscaleProbability: 0,
  blurProbabilities: [0, 0, 0],
  solarizeProbability: 0,
};
const keys = { seed: 1, position: 2 };

test("undistorted gram crops are the whole cut at their size; global ones keep size and distortions", () => {
  const { crops } = withCrops({ gramSize: 48, gramUndistorted: true });
  const plan = { ...drawCrop(rngOf(3), photo, 1, crops), jitter: [], grayscale: true, blur: null };
  const { global, gram } = renderGlobal(photo, plan, { global: 32, gram: 48 }, crops);
  const cut = new Float32Array(48 * 48 * 3);
  resizeBox(photo, plan.box, wholeOf(48), wholeOf(48), plan.flip, cut);
  expect(gram?.subarray(0, cut.length)).toEqual(cut);
  for (let i = 0; i < 32 * 32; i++) {
    expect([global[3 * i], global[3 * i + 1]]).toEqual([global[3 * i + 2], global[3 * i + 2]]);
  }
  expect(cut.some((level, i) => i % 3 === 0 && level !== cut[i + 1])).toBe(true);
});

test("distorted gram crops carry the same distortions as the global ones", () => {
  const { crops } = withCrops({ gramSize: 48 });
  const plan = { ...drawCrop(rngOf(3), photo, 1, crops), jitter: [], grayscale: true, blur: null };
  const { gram } = renderGlobal(photo, plan, { global: 32, gram: 48 }, crops);
  for (let i = 0; i < 48 * 48; i++) expect(gram?.[3 * i]).toBe(gram?.[3 * i + 2]);
});

test("gram crops of the global size are the global crops, unless those alone are distorted", () => {
  const same = makeCrops(photo, withCrops({ gramSize: 32 }), keys);
  expect(same.gram).toEqual(same.global);
  const undistorted = makeCrops(photo, withCrops({ gramSize: 32, gramUndistorted: true }), keys);
  expect(undistorted.global).toEqual(same.global);
  expect(undistorted.gram).not.toEqual(same.gram);
});

test("gram crops smaller than the global ones leave those as they are without gram crops", () => {
  const without = makeCrops(photo, withCrops({}), keys);
  const { global, gram } = makeCrops(
    photo,
    withCrops({ gramSize: 16, gramUndistorted: true }),
    keys,
  );
  expect(global).toEqual(without.global);
  expect(without.gram).toEqual([]);
  expect(gram.map((crop) => crop.length)).toEqual([768, 768]);
});

test("local crops in global ones are parts of them, half of each, at whole patches", () => {
  const spec = withCrops({
    localInGlobal: true,
    localCount: 6,
    color: plain,
    flipProbability: 0.5,
  });
  const fine = { ...spec, model: { ...spec.model, patchSize: 4 } };
  const { global, local } = makeCrops(photo, fine, keys);
  expect(local).toHaveLength(6);
  local.forEach((crop, i) => {
    expect(placesOf(crop, global[i < 3 ? 0 : 1] as Float32Array)).toHaveLength(1);
    expect(placesOf(crop, global[i < 3 ? 1 : 0] as Float32Array)).toHaveLength(0);
  });
  expect(new Set(local.map((crop) => crop.join())).size).toBeGreaterThan(3);
});

/** Where on a grid of 4 pixels a crop of 16 lies in one of 32. */
function placesOf(part: Float32Array, whole: Float32Array): string[] {
  const places: string[] = [];
  for (let top = 0; top <= 16; top += 4) {
    for (let left = 0; left <= 16; left += 4) {
      const isHere = part.every((value, i) => {
        const [y, x] = [Math.floor(i / 48), i % 48];
        return whole[(top + y) * 96 + 3 * left + x] === value;
      });
      if (isHere) places.push(`${top},${left}`);
    }
  }
  return places;
}

test("a shared jitter changes the image once, before it is cropped", () => {
  const spec = withCrops({ shareColorJitter: true });
  const key = [...Array(50).keys()].find(
    (position) =>
      drawColor(rngOf(1, streams.sharedColor, position), spec.crops.color).jitter.length > 0,
  );
  const keys = { seed: 1, position: key as number };
  const color = drawColor(rngOf(1, streams.sharedColor, keys.position), spec.crops.color);
  const recoloredPhoto = recolored(photo, color);
  expect(recoloredPhoto.pixels).not.toEqual(photo.pixels);
  const off = { ...spec.crops.color, jitterProbability: 0, grayscaleProbability: 0 };
  const without = { ...spec, crops: { ...spec.crops, color: off } };
  expect(makeCrops(photo, spec, keys)).toEqual(makeCrops(recoloredPhoto, without, keys));
  expect(distance(photo.pixels, pattern(60, 50, 3, 1)).max).toBe(0);
});
