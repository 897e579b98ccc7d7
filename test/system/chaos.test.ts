/** A bounded part of `npm run chaos`: real fleets under faults end in the undisturbed run's state, to the last bit, from the same samples. */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { failpointCoverage } from "../chaos/coverage.js";
import { runMatrix } from "../chaos/matrix.js";
import { differenceOf, type Outcome, runUndisturbed } from "../chaos/outcome.js";
import type { PointFault } from "../chaos/points.js";
import { scratch } from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

const run = { steps: 40, checkpointSteps: 4, evaluationSteps: 10, redundancy: "shadow" } as const;
let undisturbed: Outcome;
beforeAll(async () => {
  undisturbed = await runUndisturbed(join(folder.path, "one"), run, 1);
});

test("state and samples are the same with 1 and with 3 workers, 3 not dividing the 8 logical ranks", async () => {
  const three = await runUndisturbed(join(folder.path, "three"), run, 3);
  expect(differenceOf(three, undisturbed)).toBeUndefined();
  expect(three.samples).toHaveLength(run.steps * 8 * 2);
});

test("six faults at failpoints, of worker, coordinator and Redis, change neither state nor samples", async () => {
  const faults: PointFault[] = [
    { point: "worker.prepared.sent", action: "kill" },
    { point: "coordinator.commit.appended", action: "kill" },
    { point: "worker.update.half", action: "kill" },
    { point: "worker.bucket.sending", action: "redis-flush" },
    { point: "worker.decision.received", action: "cut" },
    { point: "exchange.payload.read", action: "corrupt" },
  ];
  const cells = await runMatrix({
    folder: join(folder.path, "faults"),
    run: { ...run, workers: 2 },
    undisturbed,
    faults,
    seed: 7,
    keep: true,
    onRecord: () => undefined,
    onRun: () => undefined,
  });
  expect(cells.filter(({ broken }) => broken !== undefined)).toEqual([]);
  // Each was seen to act: one that the run's end overtook was tried again in another run.
  expect(cells.map(({ record }) => record?.result)).toEqual(faults.map(() => "recovered"));
});

test("a short run that loses a worker and is left by another one passes every registered failpoint", async () => {
  const { missing } = await failpointCoverage(join(folder.path, "coverage"), {
    ...run,
    workers: 2,
  });
  expect(missing).toEqual([]);
});
