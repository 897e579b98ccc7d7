/** What happens to the fleet does not happen to the run: members come, go, are killed and cut off, and no committed step is lost. */
import { join } from "node:path";
import type { LedgerRecord, RunSpecInput } from "@paddock/contract";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Fleet } from "../support/fleet.js";
import { fleetsOfTests, paced } from "../support/fleets-of-tests.js";
import {
  paddock,
  printed,
  readSteps,
  scratch,
  trajectory,
  until,
  writeTinyRun,
} from "../support/paddock.js";

const folder = scratch();
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

const prepareFleet = fleetsOfTests(folder.path, afterEach);
const fleetOf = (
  name: string,
  fleet: RunSpecInput["fleet"],
  environment: NodeJS.ProcessEnv = {},
): Promise<Fleet> =>
  prepareFleet(name, { ...changes, fleet: { leaseSeconds: 3, ...fleet } }, environment);

type Kind<K extends LedgerRecord["kind"]> = Extract<LedgerRecord, { kind: K }>;

function generationsOf(fleet: Fleet): Kind<"generation">[] {
  return fleet.ledger().filter((record) => record.kind === "generation");
}

interface Status {
  readonly workers: readonly { readonly workerName: string; readonly worker: number }[];
}

async function statusOf(fleet: Fleet): Promise<Status> {
  const { stdout } = await paddock(["status", "--json", "--coordinator", fleet.coordinator]);
  return stdout === "" ? { workers: [] } : (JSON.parse(stdout) as Status);
}

/** Until so many workers are there, at work or waiting; the run is paused meanwhile, so that it does not end before. */
async function connected(fleet: Fleet, count: number): Promise<void> {
  await fleet.committed(2);
  await printed(["pause", "--coordinator", fleet.coordinator]);
  for (let i = 0; i < 100 && (await statusOf(fleet)).workers.length < count; i++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await printed(["unpause", "--coordinator", fleet.coordinator]);
}

/** Names of those who work, by index. */
async function membersOf(fleet: Fleet): Promise<string[]> {
  const { workers } = await statusOf(fleet);
  const members = workers.filter(({ worker }) => worker >= 0);
  return members.sort((a, b) => a.worker - b.worker).map(({ workerName }) => workerName);
}

/** How many steps were decided twice: those that a generation took back. */
function rolledBack(fleet: Fleet): number {
  return fleet.ledger().filter(({ kind }) => kind === "commit").length - steps;
}

test("workers join, leave and are asked for: each step is decided once, no checkpoint is read", async () => {
  const fleet = await fleetOf("elastic", { workers: 1 }, paced);
  const coordinator = fleet.startCoordinator();
  const workers = ["first", "second", "third"].map((name) => fleet.startWorker(name));
  await connected(fleet, 3);
  await printed(["scale", "3", "--coordinator", fleet.coordinator]);
  await until("three workers", 60, () => readSteps(fleet.runDir).at(-1)?.workers === 3);
  const [member] = workers;
  member?.kill("SIGTERM");
  expect(await member?.ended).toBe(0);
  expect(await coordinator.ended).toBe(0);
  expect(trajectory(fleet.runDir)).toEqual(undisturbed);
  expect(rolledBack(fleet)).toBe(0);
  const sizes = generationsOf(fleet).map(({ workers }) => workers);
  expect(sizes.slice(0, 1)).toEqual([1]);
  expect(sizes.at(-1)).toBe(2);
});

test("with a shadow, a worker that is killed costs no committed step", async () => {
  const fleet = await fleetOf("shadow", { workers: 3, redundancy: "shadow" }, paced);
  const coordinator = fleet.startCoordinator();
  // Three of them work, and three are there to take over.
  const workers = ["a", "b", "c", "d", "e", "f"].map((name) => fleet.startWorker(name));
  await connected(fleet, 6);
  for (const lost of [1, 2, 3]) {
    await fleet.committed(readSteps(fleet.runDir).length + 3);
    const names = await membersOf(fleet);
    workers.find(({ name }) => name === names[lost % names.length])?.kill("SIGKILL");
    await until("three others", 60, () => {
      const last = generationsOf(fleet).at(-1);
      return last?.workers === 3 && last.generation > lost;
    });
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
  const fleet = await fleetOf(
    "zombie",
    { workers: 2, redundancy: "shadow", leaseSeconds: 1.5 },
    paced,
  );
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
