import { expect, test } from "vitest";
import { interpolationMatrix } from "./interpolation.js";

test("the grid it was made for needs no interpolation", () => {
  const options = { offset: 0.1, antialias: false };
  expect(interpolationMatrix(4, { height: 4, width: 4 }, options)).toBeUndefined();
});

test.each(
  (["bicubic", "bilinear"] as const).flatMap((method) =>
    [0, 0.1].flatMap((offset) => [false, true].map((antialias) => ({ offset, antialias, method }))),
  ),
)("a constant encoding stays constant with %o", (options) => {
  for (const target of [
    { height: 2, width: 3 },
    { height: 9, width: 5 },
  ]) {
    const matrix = interpolationMatrix(4, target, options) ?? new Float32Array(0);
    expect(matrix.length).toBe(target.height * target.width * 16);
    for (let row = 0; row < matrix.length; row += 16) {
      const sum = matrix.subarray(row, row + 16).reduce((a, b) => a + b, 0);
      expect(sum).toBeCloseTo(1, 6);
    }
  }
});

test("halving without antialias samples between the two middle columns", () => {
  const options = { offset: 0, antialias: false };
  const matrix = interpolationMatrix(4, { height: 4, width: 2 }, options) ?? new Float32Array(0);
  // a = -0.75 at distance 1.5 and 0.5; the first tap is clamped to the border column.
  const [outer, inner] = [-0.09375, 0.59375];
  expect([...matrix.subarray(0, 4)]).toEqual([outer + inner, inner, outer, 0].map(Math.fround));
});

test("bilinear takes the two nearest columns; its first position is clamped to the border", () => {
  const options = { offset: 0, antialias: false, method: "bilinear" } as const;
  const axis = (side: number, target: number) => {
    const matrix = interpolationMatrix(side, { height: side, width: target }, options);
    return [...(matrix ?? [])].slice(0, side);
  };
  expect(axis(4, 2)).toEqual([0.5, 0.5, 0, 0]);
  expect(axis(2, 4)).toEqual([1, 0]);
});

test("with antialias a triangle covers the whole reduction", () => {
  const options = { offset: 0, antialias: true, method: "bilinear" } as const;
  const matrix = interpolationMatrix(4, { height: 4, width: 2 }, options) ?? new Float32Array(0);
  // Around 1 in units of columns, half width 2: distances 0.5, 0.5, 1.5; the rest is beyond.
  expect([...matrix.subarray(0, 4)]).toEqual([3 / 7, 3 / 7, 1 / 7, 0].map(Math.fround));
});
