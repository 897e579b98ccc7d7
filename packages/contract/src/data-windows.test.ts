import { expect, test } from "vitest";
import { type DataWindow, dataStepOf, leaveOut } from "./data-windows.js";

const dataOf = (windows: readonly DataWindow[], steps: number): number[] =>
  Array.from({ length: steps }, (_, step) => dataStepOf(windows, step));

test("without windows a step uses the data of its number", () => {
  expect(dataOf([], 4)).toEqual([0, 1, 2, 3]);
});

test("steps before a window keep their data, the step at it uses what follows", () => {
  const windows = leaveOut([], 2, 4);
  expect(windows).toEqual([{ from: 2, to: 4 }]);
  expect(dataOf(windows, 5)).toEqual([0, 1, 4, 5, 6]);
});

test("a second window is given in steps and kept in data steps", () => {
  const once = leaveOut([], 2, 4);
  // Steps 3 and 4 use the data steps 5 and 6 now.
  expect(leaveOut(once, 3, 5)).toEqual([
    { from: 2, to: 4 },
    { from: 5, to: 7 },
  ]);
  // Steps 1 and 2 use 1 and 4: what lies between is left out already.
  expect(leaveOut(once, 1, 3)).toEqual([{ from: 1, to: 5 }]);
  expect(dataOf(leaveOut(once, 1, 3), 3)).toEqual([0, 5, 6]);
});

test("whatever is left out, in whatever order: each data step is used once or never, in order", () => {
  let windows: readonly DataWindow[] = [];
  for (const [from, to] of [
    [5, 6],
    [0, 2],
    [3, 9],
    [7, 8],
    [1, 2],
  ] as const) {
    const used = dataOf(windows, 40);
    const out = used.slice(from, to);
    windows = leaveOut(windows, from, to);
    const expected = used.filter((step) => !out.includes(step));
    expect(dataOf(windows, expected.length)).toEqual(expected);
  }
});
