import { expect, test } from "vitest";
import { interpolationMatrix } from "./interpolation.js";

test("the grid it was made for needs no interpolation", () => {
  const options = { offset: 0.1, antialias: false };
  expect(interpolationMatrix(4, { height: 4, width: 4 }, options)).toBeUndefined();
});

test.each([
  { offset: 0, antialias: false },
  { offset: 0.1, antialias: false },
  { offset: 0, antialias: true },
  { offset: 0.1, antialias: true },
])("a constant encoding stays constant with %o", (options) => {
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
