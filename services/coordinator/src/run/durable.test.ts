import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { fold, type RunRecord, restartStep } from "./durable.js";

const spec = exampleSpec({ exchange: { dtype: "fp16", initialScale: 8 } });
const start: RunRecord = { kind: "run", runId: "r", spec, unixMs: 1 };

function generation(number: number, step: number): RunRecord {
  return { kind: "generation", generation: number, workers: 2, step, reason: "", unixMs: 2 };
}

function commit(step: number, scale: number, skipped = false): RunRecord {
  const scaler = { scale, goodSteps: 1 };
  return { kind: "commit", step, generation: 1, skipped, scaler, unixMs: 3 };
}

function checkpoint(step: number, scale: number): RunRecord {
  const scaler = { scale, goodSteps: 1 };
  return { kind: "checkpoint", step, generation: 1, manifest: `m${step}`, scaler, unixMs: 4 };
}

function evaluation(step: number): RunRecord {
  return { kind: "evaluation", step, knn: step / 10, bank: 2, queries: 1, unixMs: 5 };
}

test("an empty ledger is no run, and one that does not start with a run is a bug", () => {
  expect(fold([])).toBeUndefined();
  expect(() => fold([commit(0, 1)])).toThrow("a ledger starts with a run, not with commit");
});

test("a new generation voids what came after its first step, and takes the scaler of its checkpoint", () => {
  const records = [
    start,
    generation(1, 0),
    evaluation(0),
    commit(0, 8),
    commit(1, 16),
    checkpoint(2, 16),
    evaluation(2),
    commit(2, 32),
    commit(3, 64, true),
    evaluation(4),
  ];
  expect(fold(records)).toMatchObject({ next: 4, skipsInRow: 1, scaler: { scale: 64 } });
  const state = fold([...records, generation(2, 2)]);
  expect(state).toMatchObject({ generation: 2, next: 2, skipsInRow: 0, scaler: { scale: 16 } });
  expect(state?.evaluations.map(({ step }) => step)).toEqual([0, 2]);
});

test("a generation that starts anew has the initial scaler", () => {
  const state = fold([start, generation(1, 0), commit(0, 2), generation(2, 0)]);
  expect(state?.scaler).toEqual({ scale: 8, goodSteps: 0 });
});

test("a run restarts from its newest durable checkpoint", () => {
  const state = fold([start, generation(1, 0), commit(0, 8), commit(1, 8), checkpoint(2, 8)]);
  expect(state && restartStep(state)).toBe(2);
});

test("a second run record changes the spec and nothing else", () => {
  const changed = exampleSpec({ ...spec, fleet: { workers: 3 } });
  const state = fold([start, generation(1, 0), commit(0, 8), { ...start, spec: changed }]);
  expect(state).toMatchObject({ next: 1, generation: 1, spec: { fleet: { workers: 3 } } });
});
