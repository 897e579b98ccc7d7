/** What happens to the fleet does not happen to the run: members come, go, are killed and cut off, and no committed step is lost. */
import { join } from "node:path";
import type { LedgerRecord, RunSpecInput } from "@paddock/contract";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Fleet, startFleet } from "../support/fleet.js";
import {
  paddock,
  readSteps,
  scratch,
  trajectory,
  until,
  writeTinyRun,
} from "../support/paddock.js";

const folder = scratch();
const fleets: Fleet[] = [];
afterEach(async () => {
  for (const fleet of fleets.splice(0)) await fleet.stop();
});
afterAll(folder.remove);

const steps = 60;
const changes: Partial<RunSpecInput> = {
  steps,
  checkpoint: { everySteps: 1000 },
  exchange: { dtype: "fp16", initialScale: 256 },
};
let undisturbed: string[] = [];

beforeAll(async () => {
  const runDir = join(folder.path, "undisturbed");
  const spec = writeTinyRun(folder.path, changes);
  const { code, stderr } = await paddock(["train", spec, "--run-dir", runDir, "--workers", "1"]);
  expect(code, stderr).toBe(0);
  undisturbed = trajectory(runDir);
  expect(undisturbed).toHaveLength(steps);
});

async function fleetOf(name: string, fleet: RunSpecInput["fleet"]): Promise<Fleet> {
  const spec = writeTinyRun(folder.path, { ...changes, fleet: { leaseSeconds: 3, ...fleet } });
  const started = await startFleet({ directory: folder.path, name, spec });
  fleets.push(started);
  return started;
}

type Kind<K extends LedgerRecord["kind"]> = Extract<LedgerRecord, { kind: K }>;

function generationsOf(fleet: Fleet): Kind<"generation">[] {
  return fleet.ledger().filter((record) => record.kind === "generation");
}

/** How many steps were decided twice: those that a generation took back. */
function rolledBack(fleet: Fleet): number {
  return fleet.ledger().filter(({ kind }) => kind === "commit").length - steps;
}

test("workers join, leave and are asked for: each step is decided once, no checkpoint is read", async () => {
  const fleet = await fleetOf("elastic", { workers: 1 });
  const coordinator = fleet.startCoordinator();
  const first = fleet.startWorker("first");
  await fleet.committed(5);
  fleet.startWorker("second");
  fleet.startWorker("third");
  const scale = async (workers: number) =>
    await paddock(["scale", String(workers), "--coordinator", fleet.coordinator]);
  expect((await scale(3)).code).toBe(0);
  await until("three workers", 60, () => readSteps(fleet.runDir).at(-1)?.workers === 3);
  first.kill("SIGTERM");
  expect(await first.ended).toBe(0);
  expect(await coordinator.ended).toBe(0);
  expect(trajectory(fleet.runDir)).toEqual(undisturbed);
  expect(rolledBack(fleet)).toBe(0);
  const sizes = generationsOf(fleet).map(({ workers }) => workers);
  expect(sizes.slice(0, 1)).toEqual([1]);
  expect(sizes.at(-1)).toBe(2);
});

test("with a shadow, a worker that is killed costs no committed step", async () => {
  const fleet = await fleetOf("shadow", { workers: 3, redundancy: "shadow" });
  const coordinator = fleet.startCoordinator();
  const workers = ["a", "b", "c"].map((name) => fleet.startWorker(name));
  for (const [i, at] of [8, 25, 42].entries()) {
    await fleet.committed(at);
    workers[i]?.kill("SIGKILL");
    fleet.startWorker(`spare-${i}`);
    await until("three workers again", 60, () => generationsOf(fleet).at(-1)?.workers === 3);
  }
  expect(await coordinator.ended).toBe(0);
  expect(trajectory(fleet.runDir)).toEqual(undisturbed);
  expect(rolledBack(fleet)).toBe(0);
});

test("without one, the run goes back to its checkpoint, and its trajectory is the same", async () => {
  const fleet = await fleetOf("none", { workers: 2 });
  const coordinator = fleet.startCoordinator();
  const [victim] = [fleet.startWorker("a"), fleet.startWorker("b")];
  await fleet.committed(10);
  victim?.kill("SIGKILL");
  fleet.startWorker("c");
  expect(await coordinator.ended).toBe(0);
  expect(trajectory(fleet.runDir)).toEqual(undisturbed);
  expect(rolledBack(fleet)).toBeGreaterThan(10);
});

test("a coordinator that is killed and started again goes on with the state that the workers have kept", async () => {
  const fleet = await fleetOf("coordinator", { workers: 2 });
  let coordinator = fleet.startCoordinator();
  for (const name of ["a", "b"]) fleet.startWorker(name);
  for (const at of [6, 20, 40]) {
    await fleet.committed(at);
    coordinator.kill("SIGKILL");
    await coordinator.ended;
    coordinator = fleet.startCoordinator(true);
  }
  expect(await coordinator.ended, coordinator.log()).toBe(0);
  expect(trajectory(fleet.runDir)).toEqual(undisturbed);
  expect(rolledBack(fleet)).toBe(0);
});

test("a worker that was stopped for longer than its lease is harmless when it goes on", async () => {
  const fleet = await fleetOf("zombie", { workers: 2, redundancy: "shadow", leaseSeconds: 1.5 });
  const coordinator = fleet.startCoordinator();
  const zombie = fleet.startWorker("zombie");
  fleet.startWorker("other");
  await fleet.committed(10);
  zombie.kill("SIGSTOP");
  await until("the other alone", 60, () => readSteps(fleet.runDir).at(-1)?.workers === 1);
  zombie.kill("SIGCONT");
  await until("two again", 60, () => readSteps(fleet.runDir).at(-1)?.workers === 2);
  expect(await coordinator.ended).toBe(0);
  expect(trajectory(fleet.runDir)).toEqual(undisturbed);
  expect(rolledBack(fleet)).toBe(0);
});

test("Redis loses everything, and is killed: the step in progress is exchanged again", async () => {
  const fleet = await fleetOf("redis", { workers: 2 });
  const coordinator = fleet.startCoordinator();
  for (const name of ["a", "b"]) fleet.startWorker(name);
  for (const at of [8, 25]) {
    await fleet.committed(at);
    await fleet.redis.client.flushall();
  }
  await fleet.committed(40);
  await fleet.redis.restart();
  expect(await coordinator.ended).toBe(0);
  expect(trajectory(fleet.runDir)).toEqual(undisturbed);
  expect(rolledBack(fleet)).toBe(0);
});
