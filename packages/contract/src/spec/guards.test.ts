import { expect, test } from "vitest";
import { GuardsSpec, guardRules } from "./guards.js";

const broken = (input: unknown): string[] =>
  guardRules(GuardsSpec.parse(input)).flatMap(([holds, message]) => (holds ? [] : [message]));

test("by default three bad steps in a row roll back, and spikes are not looked for", () => {
  expect(GuardsSpec.parse({})).toMatchObject({ nonFinite: "skip", rollbackAfter: 3, spike: null });
  expect(broken({})).toEqual([]);
  expect(GuardsSpec.parse({ spike: {} }).spike).toMatchObject({ action: "warn", window: 64 });
  expect(broken({ spike: {} })).toEqual([]);
});

test("a rollback that could never happen, and a spike that hides itself, are refused by name", () => {
  expect(broken({ rollbackAfter: 30 })).toEqual([
    expect.stringMatching(/^guards\.rollbackAfter: expected at most guards\.maxSkipsInRow = 20/),
  ]);
  expect(broken({ nonFinite: "stop", maxSkipsInRow: 1 })).toEqual([]);
  expect(broken({ spike: { window: 8, steps: 5 } })).toEqual([
    expect.stringMatching(
      /^guards\.spike\.window: expected at least twice guards\.spike\.steps = 5/,
    ),
  ]);
});
