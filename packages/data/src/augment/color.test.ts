import { expect, test } from "vitest";
import { distance } from "../testing/distance.js";
import { blur, reflected } from "./blur.js";
import { applyJitter, solarize, turnGrey } from "./color.js";
import { boxOf, pillowBlur } from "./pillow-blur.js";

test("a line shorter than the kernel is mirrored again and again", () => {
  const line = (size: number) => [-4, -3, -2, -1, 0, 1, 2, 3, 4].map((i) => reflected(i, size));
  expect(line(1)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0]);
  expect(line(2)).toEqual([0, 1, 0, 1, 0, 1, 0, 1, 0]);
  expect(line(3)).toEqual([0, 1, 2, 1, 0, 1, 2, 1, 0]);
  expect(line(5)).toEqual([4, 3, 2, 1, 0, 1, 2, 3, 4]);
});

test("blur keeps a constant crop constant, however small", () => {
  for (const side of [1, 2, 4, 7]) {
    for (const blurWith of [blur, pillowBlur]) {
      const levels = new Float32Array(side * side).fill(80);
      blurWith(levels, { height: side, width: side }, 1, 1.5);
      expect(distance(levels, new Float32Array(side * side).fill(80)).max).toBeLessThan(1e-4);
    }
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

test("both blurs turn a step into a slope of a Gaussian's deviation, on both axes", () => {
  const side = 60;
  for (const [blurWith, sigma] of [
    [blur, 0.8], // torchvision's nine taps cut larger ones off
    [pillowBlur, 0.8],
    [pillowBlur, 2],
    [pillowBlur, 4.5],
  ] as const) {
    for (const stride of [1, side]) {
      const levels = Float32Array.from({ length: side * side }, (_, i) =>
        Math.floor(i / stride) % side < side / 2 ? 0 : 250,
      );
      blurWith(levels, { height: side, width: side }, 1, sigma);
      // Differences of neighbours are the kernel.
      let [total, variance] = [0, 0];
      for (let x = 1; x < side; x++) {
        const at = (side / 2) * (side / stride) * (stride === 1 ? 1 : 0) + x * stride;
        const weight = ((levels[at] as number) - (levels[at - stride] as number)) / 250;
        total += weight;
        variance += weight * (x - side / 2) ** 2;
      }
      expect(total).toBeCloseTo(1, 2);
      expect(Math.sqrt(variance) / sigma).toBeCloseTo(1, 1);
    }
  }
});

test("Pillow's box is one pixel for small deviations and grows at whole lengths", () => {
  expect(boxOf(0.1)).toMatchObject({ radius: 0 });
  expect(boxOf(2)).toMatchObject({ radius: 1 });
  expect(boxOf(3)).toMatchObject({ radius: 2 });
  for (const sigma of [0.1, 1, 2, 7]) {
    const { radius, inner, outer } = boxOf(sigma);
    const sum = ((2 * radius + 1) * inner + 2 * outer) / 2 ** 24;
    expect(sum).toBeLessThanOrEqual(1);
    expect(sum).toBeCloseTo(1, 6);
  }
});

test("solarisation inverts from half a level below its threshold on", () => {
  const levels = Float32Array.of(0, 127.4, 127.5, 200, 255);
  solarize(levels, 5);
  expect([...levels.map(Math.round)]).toEqual([0, 127, 128, 55, 0]);
});
