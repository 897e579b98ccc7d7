import { expect, test } from "vitest";
import { exampleSpec } from "../../testing/example.js";
import { badRow, type GuardHistory, noHistory, rewindTo, trimmed, withCommit } from "./history.js";

const commit = (step: number, reason?: "overflow" | "gradient", loss?: number) =>
  ({
    kind: "commit",
    step,
    generation: 1,
    skipped: reason !== undefined,
    ...(reason
      ? { offender: { reason, tensor: "t", rank: null, worker: null, workerName: "", samples: [] } }
      : {}),
    ...(loss === undefined ? {} : { loss }),
    scaler: { scale: 1, goodSteps: 0 },
    unixMs: 0,
  }) as const;

const historyOf = (...commits: ReturnType<typeof commit>[]): GuardHistory =>
  commits.reduce(withCommit, noHistory);

test("a row of bad steps ends at a good one; overflows neither end it nor count", () => {
  const history = historyOf(
    commit(3, "gradient"),
    commit(5, "gradient"),
    commit(6, "overflow"),
    commit(7, "gradient"),
  );
  expect(badRow(history, 8)).toEqual([5, 7]);
  expect(badRow(history, 9)).toEqual([]);
  expect(badRow(rewindTo(history, 6), 6)).toEqual([5]);
});

test("losses of skipped steps are not compared with", () => {
  const history = historyOf(
    commit(0, undefined, 5),
    commit(1, "gradient", 900),
    commit(2, undefined, 6),
  );
  expect(history.losses).toEqual([
    { step: 0, loss: 5 },
    { step: 2, loss: 6 },
  ]);
  expect(rewindTo(history, 2).losses).toEqual([{ step: 0, loss: 5 }]);
});

test("what is forgotten is needed by no decision from the oldest checkpoint on", () => {
  const spec = exampleSpec({ guards: { spike: { window: 8, steps: 2 }, maxSkipsInRow: 4 } });
  const losses = Array.from({ length: 100 }, (_, step) => ({ step, loss: step }));
  const skips = [10, 55, 56, 70].map((step) => ({ step, bad: true }));
  const left = trimmed({ losses, skips }, spec, 60);
  expect(left.losses.map(({ step }) => step)).toEqual(Array.from({ length: 51 }, (_, i) => 49 + i));
  expect(left.skips.map(({ step }) => step)).toEqual([56, 70]);
  // A second time changes nothing.
  expect(trimmed(left, spec, 60)).toEqual(left);
});
