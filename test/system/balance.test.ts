/** Workers that differ in speed get different numbers of logical ranks, and the run's result is the same to the last bit. */
import { join } from "node:path";
import type { RunSpecInput } from "@paddock/contract";
import { afterAll, afterEach, expect, test } from "vitest";
import { consumedSamples } from "../chaos/audit.js";
import { finalState } from "../chaos/state-hash.js";
import type { Fleet } from "../support/fleet.js";
import { fleetsOfTests } from "../support/fleets-of-tests.js";
import { printed, scratch, trajectory, until } from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

const steps = 60;

const prepareFleet = fleetsOfTests(folder.path, afterEach);

function fleetOf(name: string, fleet: RunSpecInput["fleet"]): Promise<Fleet> {
  const changes = { steps, checkpoint: { everySteps: 1000 }, exchange: { dtype: "fp16" } } as const;
  const audit = join(folder.path, `${name}-audit`);
  return prepareFleet(name, { ...changes, fleet }, { PADDOCK_AUDIT: audit });
}

function resultOf({ runDir, ledger }: Fleet, name: string) {
  const samples = consumedSamples(join(folder.path, `${name}-audit`), ledger());
  return { trajectory: trajectory(runDir), state: finalState(runDir), samples };
}

/** Every gradient of a unit and rank takes so much longer. */
function slowness(ms: number): Readonly<Record<string, string>> {
  const arms = Array.from(
    { length: 800 },
    (_, i) => `worker.backward.gradient=delay@${i + 1}:${ms}`,
  );
  return { PADDOCK_FAILPOINTS: arms.join(";"), PADDOCK_FAILPOINTS_LOG: "/dev/null" };
}

test("a slow worker gets fewer ranks, without a lost step, and the final state is that of one worker", async () => {
  const alone = await fleetOf("alone", { workers: 1 });
  alone.startWorker("only");
  expect(await alone.startCoordinator().ended).toBe(0);

  const pair = await fleetOf("pair", { workers: 2 });
  const coordinator = pair.startCoordinator();
  pair.startWorker("fast");
  pair.startWorker("slow", [], slowness(20));
  const generations = () => pair.ledger().flatMap((r) => (r.kind === "generation" ? [r] : []));
  await until("other cuts", 60, () => generations().length > 1);
  const status = await printed(["status", "--json", "--coordinator", pair.coordinator]);
  expect(await coordinator.ended, coordinator.log()).toBe(0);

  const [first, second] = generations();
  expect(first?.cuts).toEqual([0, 2, 4]);
  // Whoever came first is the first member.
  expect([
    [0, 3, 4],
    [0, 1, 4],
  ]).toContainEqual(second?.cuts);
  const { workers } = JSON.parse(status) as { workers: { workerName: string }[] };
  expect(workers.sort((a, b) => (a.workerName < b.workerName ? -1 : 1))).toMatchObject([
    { workerName: "fast", ranks: 3 },
    { workerName: "slow", ranks: 1 },
  ]);
  expect(pair.ledger().filter(({ kind }) => kind === "commit")).toHaveLength(steps);
  expect(resultOf(pair, "pair")).toEqual(resultOf(alone, "alone"));
});
