import { expect, test } from "vitest";
import { rngOf } from "./rng.js";

test("the same keys give the same stream, other keys another", () => {
  const draw = (...keys: number[]): number[] => {
    const rng = rngOf(...keys);
    return Array.from({ length: 5 }, () => rng.uniform());
  };
  expect(draw(1, 2, 3)).toEqual(draw(1, 2, 3));
  const others = [
    draw(1, 2, 4),
    draw(2, 1, 3),
    draw(1, 2),
    draw(0, 1, 2, 3),
    draw(1, 2, 3 + 2 ** 32),
  ];
  for (const other of others) expect(other).not.toEqual(draw(1, 2, 3));
});

test("first draws of neighbouring keys are uniform and uncorrelated", () => {
  const n = 20_000;
  const first = Array.from({ length: n }, (_, i) => rngOf(7, 3, i).uniform());
  const bins = new Array(20).fill(0);
  for (const x of first) bins[Math.floor(x * 20)]++;
  const chi2 = bins.reduce((sum, count) => sum + (count - n / 20) ** 2 / (n / 20), 0);
  expect(chi2).toBeLessThan(44); // 19 degrees of freedom, p = 0.001
  let correlation = 0;
  for (let i = 1; i < n; i++)
    correlation += ((first[i] as number) - 0.5) * ((first[i - 1] as number) - 0.5) * 12;
  expect(Math.abs(correlation / n)).toBeLessThan(0.025);
});

test("normal draws have mean 0, variance 1; permutations are permutations", () => {
  const rng = rngOf(5);
  const n = 50_000;
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < n; i++) {
    const x = rng.normal();
    sum += x;
    squares += x * x;
  }
  expect(Math.abs(sum / n)).toBeLessThan(0.02);
  expect(Math.abs(squares / n - 1)).toBeLessThan(0.03);
  expect([...rng.permutation(100)].sort((a, b) => a - b)).toEqual(
    Array.from({ length: 100 }, (_, i) => i),
  );
});
