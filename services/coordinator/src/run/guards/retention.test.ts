import { expect, test } from "vitest";
import { exampleSpec } from "../../testing/example.js";
import { noHistory } from "./history.js";
import { keptWithGuards } from "./retention.js";

const spec = (guards: Parameters<typeof exampleSpec>[0]) =>
  exampleSpec({ steps: 1000, checkpoint: { everySteps: 10, keep: 2 }, ...guards });
const kept = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100];
const at = { next: 101, kept, rollbacks: [], history: noHistory };
const skips = (...steps: number[]) => ({
  ...noHistory,
  skips: steps.map((step) => ({ step, bad: true })),
});

test("without rollbacks the newest ones stay", () => {
  expect(keptWithGuards({ ...at, spec: spec({ guards: { rollbackAfter: 0 } }) })).toEqual([
    90, 100,
  ]);
  expect(keptWithGuards({ ...at, spec: spec({ guards: { maxRollbacks: 0 } }) })).toEqual([90, 100]);
});

test("the one before the data that the next rollbacks may leave out stays too", () => {
  // 3 times 8 steps before step 101: 77.
  expect(keptWithGuards({ ...at, spec: spec({}) })).toEqual([70, 90, 100]);
  // The row began at step 99: 75.
  expect(keptWithGuards({ ...at, spec: spec({}), history: skips(40, 99, 100) })).toEqual([
    70, 90, 100,
  ]);
  expect(keptWithGuards({ ...at, spec: spec({ guards: { skipWindow: false } }) })).toEqual([
    90, 100,
  ]);
  expect(keptWithGuards({ ...at, spec: spec({ guards: { skipBefore: 0 } }) })).toEqual([90, 100]);
  const row = Array.from({ length: 15 }, (_, index) => 86 + index);
  const long = spec({ guards: { skipBefore: 0, rollbackAfter: 20 } });
  expect(keptWithGuards({ ...at, spec: long, history: skips(...row) })).toEqual([80, 90, 100]);
});

test("spikes begin some losses back, skipped steps not counted", () => {
  const spike = { action: "rollback", steps: 4, window: 8 } as const;
  const guards = { rollbackAfter: 0, skipBefore: 0, spike };
  // The fourth one may be that of step 101, the first then that of step 88.
  const losses = [50, 60, 88, 99, 100].map((step) => ({ step, loss: 1 }));
  const history = { skips: [], losses };
  expect(keptWithGuards({ ...at, spec: spec({ guards }), history })).toEqual([80, 90, 100]);
});
