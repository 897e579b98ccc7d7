/** `paddock why` in real hangs: each is made on purpose, so what is right is known. */
import { readFileSync } from "node:fs";
import type { RunSpecInput } from "@paddock/contract";
import { afterAll, afterEach, expect, test } from "vitest";
import type { Fleet, Member } from "../support/fleet.js";
import { fleetsOfTests, paced } from "../support/fleets-of-tests.js";
import { paddock, printed, readSteps, scratch, until } from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

const leaseSeconds = 120;

const prepareFleet = fleetsOfTests(folder.path, afterEach);
const fleetOf = (
  name: string,
  changes: Partial<RunSpecInput> = {},
  environment: NodeJS.ProcessEnv = {},
): Promise<Fleet> =>
  prepareFleet(
    name,
    {
      steps: 400,
      fleet: { workers: 2, leaseSeconds },
      checkpoint: { everySteps: 20 },
      evaluation: { everySteps: 30, bank: 32, queries: 16, finalBank: 32, finalQueries: 16 },
      ...changes,
    },
    environment,
  );

interface Blocker {
  readonly kind: string;
  readonly name: string;
  readonly owes: string;
  readonly step: number;
  readonly phase: string;
  readonly lastProgressUnixMs: number;
  readonly deadlineUnixMs: number;
}

interface Answer {
  readonly step: number;
  readonly reason: string;
  readonly blockers: readonly Blocker[];
  readonly nextAction: string;
  readonly nextActionUnixMs: number;
  readonly needsHelp: boolean;
  readonly code: number | null;
}

async function why(fleet: Fleet, where = ["--coordinator", fleet.coordinator]): Promise<Answer> {
  const { code, stdout, stderr } = await paddock(["why", "--json", ...where]);
  expect(stdout, stderr).not.toBe("");
  return { ...(JSON.parse(stdout) as Omit<Answer, "code">), code };
}

function isStopped({ process: { pid } }: Member): boolean {
  return /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
}

/**
 * Where a worker stops itself, how often it has passed there, and in which phases the coordinator may see it: what it said last may not have
 * left when it stopped.
 */
const places = [
  ["worker.load.begun", 1, ["start", "load"]],
  ["worker.load.done", 1, ["load"]],
  ["worker.batch.ready", 3, ["prepared", "data"]],
  ["worker.compute.begun", 6, ["prepared", "data"]],
  ["worker.gather.begun", 60, ["prepared", "data", "teacher", "loss", "student", "backward"]],
  ["worker.bucket.sending", 60, ["teacher", "loss", "student", "backward", "reduce"]],
  ["worker.bucket.received", 90, ["teacher", "loss", "student", "backward", "reduce"]],
  ["worker.gradient.reduced", 24, ["backward", "reduce"]],
  ["worker.prepared.sending", 28, ["backward", "reduce"]],
  ["worker.decision.received", 32, ["reduce", "prepared"]],
  ["worker.update.done", 36, ["prepared"]],
  ["worker.publish.begun", 42, ["prepared"]],
  ["worker.checkpoint.begun", 3, ["prepared", "checkpoint"]],
  ["worker.evaluation.begun", 3, ["prepared", "checkpoint", "evaluate"]],
] as const;

test("a worker that hangs is named with its step, phase, last progress, deadline and what follows, in 14 places", async () => {
  const fleet = await fleetOf("places");
  fleet.startCoordinator();
  fleet.startWorker("other");
  const points = places.map(([point, hit]) => `${point}=freeze@${hit}`).join(";");
  const victim = fleet.startWorker("victim", [], { PADDOCK_FAILPOINTS: points });
  const met = new Set<string>();
  for (let i = 0; i < places.length; i++) {
    await until(`hang ${i + 1}`, 60, () => isStopped(victim));
    const stoppedAt = Date.now();
    await until("the other to wait for it", 10, () => Date.now() - stoppedAt > 700);
    const committed = readSteps(fleet.runDir).length;
    const answer = await why(fleet);
    const [blocker, ...others] = answer.blockers;
    expect(others).toEqual([]);
    expect(blocker).toMatchObject({ kind: "worker", name: "victim" });
    expect(blocker?.owes).toBe(`the gradient of step ${committed}`);
    expect(answer.step).toBe(committed);
    const place = pointOf(victim);
    met.add(place);
    expect(phasesOf(place), `at ${place}`).toContain(blocker?.phase);
    expect([committed - 1, committed]).toContain(blocker?.step);
    // A busy machine lets seconds go by between the last progress and the stop.
    expect(Math.abs((blocker?.lastProgressUnixMs ?? 0) - stoppedAt)).toBeLessThan(20_000);
    expect((blocker?.deadlineUnixMs ?? 0) - (blocker?.lastProgressUnixMs ?? 0)).toBe(
      leaseSeconds * 1000,
    );
    expect(answer.nextActionUnixMs).toBe(blocker?.deadlineUnixMs);
    expect(answer.nextAction).toMatch(
      /expelled; the run goes back to step \d+, its last checkpoint/,
    );
    expect(answer.code).toBe(0);
    victim.kill("SIGCONT");
    // It may have come to its next place between two looks.
    await until("it to go on", 10, () => !isStopped(victim) || pointOf(victim) !== place);
  }
  expect([...met].sort()).toEqual(places.map(([point]) => point).sort());
});

/** Where it has stopped itself last: it says so before it does. */
function pointOf(member: Member): string {
  const points = [...member.log().matchAll(/"failpoint":"([\w.]+)"/g)];
  return points.at(-1)?.[1] ?? "";
}

function phasesOf(point: string): readonly string[] {
  return places.find(([name]) => name === point)?.[2] ?? [];
}

test("missing workers, a pause, a silent Redis, and a coordinator that is stopped or dead are told apart", async () => {
  const fleet = await fleetOf("others", { evaluation: { everySteps: 0 } }, paced);
  const coordinator = fleet.startCoordinator();
  await until("the coordinator", 30, () => fleet.ledger().length > 0);
  const none = await retried(() => why(fleet));
  expect(none).toMatchObject({ needsHelp: true, code: 4 });
  expect(none.blockers[0]?.owes).toBe("2 more of 2 workers");
  expect(none.nextAction).toContain("paddock worker");

  fleet.startWorker("a");
  const half = await eventually(
    fleet,
    ({ blockers }) => blockers[0]?.owes === "1 more of 2 workers",
  );
  expect(half).toMatchObject({ needsHelp: true, code: 4 });

  const victim = fleet.startWorker("b");
  await fleet.committed(3);
  await printed(["pause", "--coordinator", fleet.coordinator]);
  const paused = await eventually(fleet, ({ reason }) => reason === "somebody paused the run");
  expect(paused.blockers[0]).toMatchObject({ kind: "user" });
  expect(paused).toMatchObject({ needsHelp: true, code: 4 });
  expect(paused.nextAction).toContain("paddock unpause");
  await printed(["unpause", "--coordinator", fleet.coordinator]);

  await fleet.committed(6);
  fleet.redis.process.kill("SIGSTOP");
  const silent = await eventually(fleet, ({ blockers }) => blockers[0]?.kind === "redis");
  expect(silent).toMatchObject({ reason: "Redis does not answer", needsHelp: false });
  fleet.redis.process.kill("SIGCONT");

  const before = readSteps(fleet.runDir).length;
  await fleet.committed(before + 2);
  victim.kill("SIGKILL");
  const lost = await eventually(
    fleet,
    ({ blockers }) => blockers[0]?.owes === "1 more of 2 workers",
  );
  expect(lost.reason).toContain("worker b is gone");
  expect(lost.nextAction).toBe("it goes on with 1");
  expect(lost.nextActionUnixMs).toBeGreaterThan(Date.now());
  expect(lost).toMatchObject({ needsHelp: false, code: 0 });

  coordinator.kill("SIGSTOP");
  const stopped = await why(fleet, [fleet.runDir]);
  expect(stopped.reason).toContain("is stopped");
  expect(stopped.nextAction).toContain(`kill -CONT ${coordinator.process.pid}`);
  expect(stopped).toMatchObject({ needsHelp: true, code: 4 });

  coordinator.kill("SIGKILL");
  await coordinator.ended;
  const dead = await why(fleet, [fleet.runDir]);
  expect(dead.reason).toContain("is not running");
  expect(dead.nextAction).toContain(`paddock resume ${fleet.runDir}`);
  expect(dead).toMatchObject({ needsHelp: true, code: 4 });
});

/** The first answer of which `isIt` holds. */
async function eventually(fleet: Fleet, isIt: (answer: Answer) => boolean): Promise<Answer> {
  for (let i = 0; i < 60; i++) {
    const answer = await why(fleet);
    if (isIt(answer)) return answer;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return await why(fleet);
}

async function retried(ask: () => Promise<Answer>): Promise<Answer> {
  for (let i = 0; ; i++) {
    try {
      return await ask();
    } catch (error) {
      if (i === 20) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}
