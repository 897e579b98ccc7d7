import { expect, test } from "vitest";
import type { Image } from "../image.js";
import { distance } from "../testing/distance.js";
import { pattern } from "../testing/images.js";
import { resizeBox, resizeLevels, wholeOf } from "./resize.js";

const photo: Image = { width: 210, height: 150, channels: 3, pixels: pattern(210, 150, 3, 2) };
const part = [10, 20, 100, 90] as const;

function resized(image: Image, box: readonly number[], size: number, flip = false): Float32Array {
  const [top, left, height, width] = box as [number, number, number, number];
  const out = new Float32Array(size * size * image.channels);
  resizeBox(image, { top, left, height, width }, wholeOf(size), wholeOf(size), flip, out);
  return out;
}

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
  const plain = resized(photo, part, size);
  const mirrored = Float32Array.from(plain, (_, i) => {
    const x = Math.floor(i / 3) % size;
    return plain[i + 3 * (size - 1 - 2 * x)] as number;
  });
  expect(resized(photo, part, size, true)).toEqual(mirrored);
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
  const kept = new Float32Array(size * size * 3);
  const window = { total, from, size };
  resizeBox(photo, box, window, window, false, kept);
  const wanted = Float32Array.from(kept, (_, i) => {
    const [y, x, c] = [Math.floor(i / (3 * size)), Math.floor(i / 3) % size, i % 3];
    return whole[((from + y) * total + from + x) * 3 + c] as number;
  });
  expect(kept).toEqual(wanted);
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

test("a computed crop is resized as the same pixels of an image are, and may be left unclipped", () => {
  const side = 40;
  const edges = Uint8Array.from({ length: side * side * 3 }, (_, i) => (i % 120 < 60 ? 0 : 255));
  const image: Image = { width: side, height: side, channels: 3, pixels: edges };
  const levels = Float32Array.from(edges);
  for (const size of [23, 40, 61]) {
    const out = new Float32Array(size * size * 3);
    resizeLevels(levels, image, 3, size, true, out);
    expect(distance(out, resized(image, [0, 0, side, side], size)).max).toBeLessThan(1e-3);
  }
  const unclipped = new Float32Array(61 * 61 * 3);
  resizeLevels(levels, image, 3, 61, false, unclipped);
  expect(Math.max(...unclipped)).toBeGreaterThan(260);
  expect(Math.min(...unclipped)).toBeLessThan(-5);
});
