import { rngOf } from "@paddock/contract";
import { expect, test } from "vitest";
import { spreadOf, symmetricEigenvalues } from "./spread.js";

const width = 48;

function rowsOf(count: number, row: (i: number) => ArrayLike<number>): number[] {
  return Array.from({ length: count }, (_, i) => Array.from(row(i))).flat();
}

function unitVector(axis: number): number[] {
  return Array.from({ length: width }, (_, d) => (d === axis ? 1 : 0));
}

test("equal rows have no spread and rank 1, whatever their length", () => {
  const rng = rngOf(1);
  const direction = Array.from({ length: width }, () => rng.normal());
  const values = rowsOf(16, (i) => direction.map((value) => value * (i + 1)));
  const { featureStd, effectiveRank } = spreadOf(values, 16);
  expect(featureStd).toBeCloseTo(0, 6);
  expect(effectiveRank).toBeCloseTo(1, 4);
});

test("k orthogonal groups of equal rows have rank k", () => {
  for (const k of [2, 5, 16]) {
    const values = rowsOf(2 * k, (i) => unitVector(i % k));
    expect(spreadOf(values, 2 * k).effectiveRank).toBeCloseTo(k, 6);
  }
});

test("more rows than dimensions give the rank of the same matrix", () => {
  const rng = rngOf(2);
  const [rows, columns] = [40, 6];
  const values = Array.from({ length: rows * columns }, () => rng.normal());
  const rank = spreadOf(values, rows).effectiveRank;
  expect(rank).toBeGreaterThan(5);
  expect(rank).toBeLessThanOrEqual(columns + 1e-9);
});

test("directions drawn evenly from the sphere have a spread of 1", () => {
  const rng = rngOf(3);
  const values = Array.from({ length: 64 * 400 }, () => rng.normal());
  expect(spreadOf(values, 64).featureStd).toBeGreaterThan(0.97);
  expect(spreadOf(values, 64).featureStd).toBeLessThan(1.01);
});

test("rows of zeros and rows that are not numbers come through", () => {
  expect(spreadOf(new Float32Array(3 * width), 3).featureStd).toBe(0);
  expect(spreadOf(new Float32Array(3 * width).fill(Number.NaN), 3).featureStd).toBeNaN();
});

test("eigenvalues of a rotated diagonal matrix are its diagonal", () => {
  const size = 64;
  const rng = rngOf(4);
  const wanted = Array.from({ length: size }, (_, i) => (i === 0 ? 1e6 : rng.uniform() ** 8));
  const matrix = wanted.map((value, i) =>
    Float64Array.from({ length: size }, (_, j) => (i === j ? value : 0)),
  );
  // Random reflections I - 2 v vT on both sides keep the eigenvalues.
  for (let round = 0; round < 4; round++) {
    const v = Float64Array.from({ length: size }, () => rng.normal());
    const squares = v.reduce((sum, x) => sum + x * x, 0);
    const reflect = (x: Float64Array): void => {
      const along = (2 * x.reduce((sum, y, i) => sum + y * (v[i] as number), 0)) / squares;
      for (let i = 0; i < size; i++) x[i] = (x[i] as number) - along * (v[i] as number);
    };
    matrix.forEach(reflect);
    const columns = matrix.map((_, j) => Float64Array.from(matrix, (row) => row[j] as number));
    columns.forEach(reflect);
    for (const [j, column] of columns.entries()) {
      for (const [i, value] of column.entries()) (matrix[i] as Float64Array)[j] = value;
    }
  }
  const found = symmetricEigenvalues(matrix).toSorted((a, b) => b - a);
  for (const [i, value] of wanted.toSorted((a, b) => b - a).entries()) {
    expect(Math.abs((found[i] as number) - value)).toBeLessThan(1e-8); // 1e-14 of the largest
  }
});
