/** Values that are not finite, in real processes: named where they came up, skipped, and left out of a run that goes back. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { LedgerRecord } from "@paddock/contract";
import { afterAll, afterEach, expect, test } from "vitest";
import type { Fleet } from "../support/fleet.js";
import { fleetsOfTests, paced } from "../support/fleets-of-tests.js";
import { paddock, printed, readSteps, scratch, trajectory, until } from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

const auditFolder = join(folder.path, "audit");

type Of<K extends LedgerRecord["kind"]> = Extract<LedgerRecord, { kind: K }>;

function of<K extends LedgerRecord["kind"]>(fleet: Fleet, kind: K): Of<K>[] {
  return fleet.ledger().filter((record): record is Of<K> => record.kind === kind);
}

const fleetOf = fleetsOfTests(folder.path, afterEach);

interface Audited {
  readonly step: number;
  readonly rank: number;
  readonly samples: readonly number[];
}

/** What every rank computed every step with, from the workers' own notes. */
function audited(): Audited[] {
  return readdirSync(auditFolder)
    .flatMap((file) => readFileSync(join(auditFolder, file), "utf8").trim().split("\n"))
    .map((line) => JSON.parse(line) as Audited);
}

async function metricsOf({ runDir }: Fleet): Promise<string> {
  const note = readFileSync(join(runDir, "coordinator.json"), "utf8");
  const { metricsAddress } = JSON.parse(note) as { metricsAddress: string };
  return await (await fetch(`http://${metricsAddress}/metrics`)).text();
}

test("a spoilt sample costs one step per epoch; ledger, log, why, status and metrics name tensor, worker, rank and samples", async () => {
  const poisoned = 11;
  const fleet = await fleetOf(
    "named",
    { steps: 24, fleet: { workers: 2 } },
    { ...paced, PADDOCK_POISON: String(poisoned), PADDOCK_AUDIT: auditFolder },
  );
  const coordinator = fleet.startCoordinator();
  for (const name of ["left", "right"]) fleet.startWorker(name);
  await until("a skipped step", 60, () => of(fleet, "commit").some(({ skipped }) => skipped));
  await printed(["pause", "--coordinator", fleet.coordinator]);
  const first = of(fleet, "commit").find(({ skipped }) => skipped);
  const offender = first?.offender;
  if (!first || !offender || offender.rank === null) throw new Error("expected an offender");
  const { step } = first;
  const { rank, samples, workerName, tensor } = offender;
  const used = audited().filter((line) => line.step === step);
  expect(used.find((line) => line.samples.includes(poisoned))).toMatchObject({ rank, samples });
  expect(offender.worker).toBe(rank < 2 ? 0 : 1);
  expect(["left", "right"]).toContain(workerName);
  expect(offender).toMatchObject({ reason: "loss", tensor: expect.stringMatching(/^(sum|loss) /) });
  const said = `step ${step} skipped, not finite: ${tensor} of logical rank ${rank} on ${workerName} (samples ${samples.join(", ")})`;
  const at = ["--coordinator", fleet.coordinator];
  const [why, status, metrics] = [
    await printed(["why", ...at], 4),
    await printed(["status", ...at]),
    await metricsOf(fleet),
  ];
  expect(why).toContain(`guard: ${said}`);
  expect(status).toContain("guard: step ");
  // Another epoch's step may be the last one by now.
  expect(metrics).toMatch(
    /^paddock_non_finite_step\{reason="loss",tensor="\w+ [^"]+",rank="\d",worker="(left|right)",samples="\d+,\d+",.*\} \d+$/m,
  );
  const log = readFileSync(join(fleet.runDir, "logs", "coordinator.log"), "utf8");
  expect(log).toContain(`${tensor} of logical rank ${rank} on ${workerName}`);
  await printed(["unpause", ...at]);
  expect(await coordinator.ended, coordinator.log()).toBe(0);
  expect(of(fleet, "rollback")).toEqual([]);
  // 64 images, 8 a step: once in each of 3 epochs. Nothing that was committed is other than finite.
  const steps = readSteps(fleet.runDir);
  expect(steps).toHaveLength(24);
  expect(steps.filter(({ skipped }) => skipped)).toHaveLength(3);
  for (const done of steps) expect(Number.isFinite(done.loss)).toBe(!done.skipped);
  const after = await printed(["why", fleet.runDir]);
  expect(after).toContain("guard: step ");
});

interface Ending {
  readonly trajectory: readonly string[];
  readonly data: readonly number[];
  readonly stateHash: string;
  readonly rollbacks: readonly object[];
}

const steps = 24;

async function endingOf(fleet: Fleet): Promise<Ending> {
  const { stdout } = await paddock([
    ...["checkpoint", "verify", fleet.runDir, "--step", String(steps), "--json"],
  ]);
  const { stateHash } = JSON.parse(stdout) as { stateHash: string };
  return {
    trajectory: trajectory(fleet.runDir),
    data: readSteps(fleet.runDir).map(({ step, dataStep = step }) => dataStep),
    stateHash,
    rollbacks: of(fleet, "rollback").map(({ step, toStep, skip, cause, offender }) => {
      const { rank, samples, tensor } = offender ?? {};
      return { step, toStep, skip, cause, rank, samples, tensor };
    }),
  };
}

test("two bad steps in a row roll back and their data is left out: the same state with one worker, with two, and after SIGKILL before the rollback is recorded", async () => {
  // The samples of two steps in a row, as the run before has used them.
  const sampleOf = (step: number): number => {
    const line = audited().find((used) => used.step === step && used.rank === 1);
    return line?.samples[0] ?? -1;
  };
  const poison = { PADDOCK_POISON: `${sampleOf(9)},${sampleOf(10)}` };
  const run = async (name: string, workers: number, killAtCommit = 0): Promise<Fleet> => {
    const fleet = await fleetOf(
      name,
      {
        steps,
        fleet: { workers },
        checkpoint: { everySteps: 3 },
        guards: { rollbackAfter: 2, skipBefore: 2, maxRollbacks: 10 },
      },
      poison,
    );
    const failpoints = `coordinator.commit.appended=kill@${killAtCommit}`;
    const killed = fleet.startCoordinator(
      false,
      killAtCommit > 0 ? { PADDOCK_FAILPOINTS: failpoints } : {},
    );
    for (let worker = 0; worker < workers; worker++) fleet.startWorker(`${name}-${worker}`);
    const end = await killed.ended;
    if (killAtCommit > 0) {
      expect(end).toBe("SIGKILL");
      expect(fleet.ledger().at(-1)).toMatchObject({ kind: "commit", skipped: true });
      expect(of(fleet, "rollback")).toEqual([]);
      const resumed = fleet.startCoordinator(true);
      expect(await resumed.ended, resumed.log()).toBe(0);
    } else expect(end, killed.log()).toBe(0);
    return fleet;
  };
  const alone = await run("alone", 1);
  const one = await endingOf(alone);
  const [rollback] = one.rollbacks;
  expect(rollback).toMatchObject({ cause: "non-finite", rank: 1, skip: { from: 7, to: 11 } });
  expect(one.data).toHaveLength(steps);
  expect(one.data.slice(0, 8)).toEqual([0, 1, 2, 3, 4, 5, 6, 11]);
  const decided = fleetCommits(alone);
  const two = await run("pair", 2);
  expect(await endingOf(two)).toEqual(one);
  const killed = await run("killed", 2, decided);
  expect(await endingOf(killed)).toEqual(one);
});

/** Commits up to the first rollback. */
function fleetCommits(fleet: Fleet): number {
  const ledger = fleet.ledger();
  const end = ledger.findIndex(({ kind }) => kind === "rollback");
  return ledger.slice(0, end).filter(({ kind }) => kind === "commit").length;
}
