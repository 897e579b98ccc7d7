import { expect, test } from "vitest";
import type { Image } from "../image.js";
import { channelsLast, distance, goldenImage, readGolden } from "../testing/golden.js";
import { resizeBox, wholeOf } from "./resize.js";

const golden = readGolden("crop_resize");
const photo = goldenImage(readGolden("photo"), "inputs.photo");
const { boxes_top_left_h_w_size: boxes } = golden.meta("config") as {
  boxes_top_left_h_w_size: [number, number, number, number, number][];
};
const pillowVersusFloat = golden.meta("pil_vs_float") as Record<string, [number, number]>;

function resized(image: Image, box: readonly number[], size: number, flip = false): Float32Array {
  const [top, left, height, width] = box as [number, number, number, number];
  const out = new Float32Array(size * size * image.channels);
  resizeBox(image, { top, left, height, width }, wholeOf(size), wholeOf(size), flip, out);
  return out;
}

test("crop-resize is as close to Pillow as torch's own float resize is", () => {
  expect(boxes).toHaveLength(8);
  boxes.forEach(([...box], i) => {
    const size = box[4];
    const found = distance(resized(photo, box, size), golden.values(`outputs.${i}`));
    const [max, mean] = pillowVersusFloat[i] as [number, number];
    // The recorded distances have three digits.
    expect(found.max, `box ${i}`).toBeLessThanOrEqual(max + 2e-3);
    expect(found.mean, `box ${i}`).toBeLessThanOrEqual(mean + 2e-4);
  });
});

test("crop-resize equals torch's float resize to single precision", () => {
  for (const i of [3, 7]) {
    const box = boxes[i] as number[];
    const name = `outputs.float.${i}`;
    const wanted = channelsLast(golden.values(name), golden.shape(name));
    expect(distance(resized(photo, box, box[4] as number), wanted).max).toBeLessThan(2e-4);
  }
});

test("one channel is resized like each of three", () => {
  const grey: Image = {
    ...photo,
    channels: 1,
    pixels: photo.pixels.filter((_, i) => i % 3 === 1),
  };
  const box = [37, 101, 61, 83];
  const ofThree = resized(photo, box, 40).filter((_, i) => i % 3 === 1);
  expect(resized(grey, box, 40)).toEqual(ofThree);
});

test("a flip mirrors the result", () => {
  const size = 12;
  const plain = resized(photo, boxes[1] as number[], size);
  const mirrored = Float32Array.from(plain, (_, i) => {
    const x = Math.floor(i / 3) % size;
    return plain[i + 3 * (size - 1 - 2 * x)] as number;
  });
  expect(resized(photo, boxes[1] as number[], size, true)).toEqual(mirrored);
});

test("a flip mirrors one channel, too", () => {
  const image: Image = {
    width: 9,
    height: 1,
    channels: 1,
    pixels: Uint8Array.from([1, 9, 2, 8, 3, 7, 4, 6, 5]),
  };
  const row = (flip: boolean): Float32Array => {
    const out = new Float32Array(6);
    const box = { top: 0, left: 0, width: 9, height: 1 };
    resizeBox(image, box, wholeOf(1), wholeOf(6), flip, out);
    return out;
  };
  expect(row(true)).toEqual(row(false).reverse());
});

test("a window is the same part of the whole result", () => {
  const box = { top: 3, left: 5, height: 90, width: 70 };
  const [total, from, size] = [32, 6, 9];
  const whole = new Float32Array(total * total * 3);
  resizeBox(photo, box, wholeOf(total), wholeOf(total), false, whole);
  const part = new Float32Array(size * size * 3);
  const window = { total, from, size };
  resizeBox(photo, box, window, window, false, part);
  const wanted = Float32Array.from(part, (_, i) => {
    const [y, x, c] = [Math.floor(i / (3 * size)), Math.floor(i / 3) % size, i % 3];
    return whole[((from + y) * total + from + x) * 3 + c] as number;
  });
  expect(part).toEqual(wanted);
});

test("a constant image stays constant at any size, one pixel included", () => {
  for (const side of [1, 2, 5, 40]) {
    const image: Image = {
      width: side,
      height: side,
      channels: 1,
      pixels: new Uint8Array(side * side).fill(200),
    };
    for (const size of [1, 3, 16]) {
      const out = resized(image, [0, 0, side, side], size);
      expect(distance(out, new Float32Array(size * size).fill(200)).max).toBeLessThan(1e-3);
    }
  }
});
