/** `--schedules N`: random schedules of joins, leaves and kills with 1 to 8 workers; and runs that keep their number of workers. */
import { join } from "node:path";
import { type Rng, rngOf } from "@paddock/contract";
import { type FaultyRun, runUnderFaults } from "./faulty-run.js";
import type { Fleet } from "./fleet.js";
import type { Fault } from "./inject.js";
import { differenceOf, type Outcome, runUndisturbed } from "./outcome.js";
import { type ChaosRun, mostWorkers } from "./spec.js";

/** Numbers of workers at which the state must be the same; 1 is the reference. */
export const undisturbedWorkers = [2, 3, 5, 7, 8];

export interface Schedules {
  readonly folder: string;
  readonly run: Omit<ChaosRun, "workers">;
  readonly undisturbed: Outcome;
  readonly seed: number;
  readonly keep: boolean;
}

/** What is not as with one worker, by number of workers. */
export async function compareWorkerCounts(
  o: Schedules,
  counts: readonly number[],
  onRun: (workers: number, outcome: Outcome, broken: string | undefined) => void,
): Promise<(string | undefined)[]> {
  const all: (string | undefined)[] = [];
  for (const workers of counts) {
    const outcome = await runUndisturbed(join(o.folder, `workers-${workers}`), o.run, workers);
    const broken = differenceOf(outcome, o.undisturbed);
    all.push(broken);
    onRun(workers, outcome, broken);
  }
  return all;
}

/** Membership changes of a schedule, spread over the run. */
const changes = 8;

export async function runSchedule(o: Schedules, number: number): Promise<FaultyRun> {
  const rng = rngOf(o.seed, 1000 + number);
  // The first step waits for as many as the spec says; then as many as come are welcome.
  const run: ChaosRun = { ...o.run, workers: 1 + rng.below(mostWorkers) };
  let done = 0;
  return await runUnderFaults({
    ...o,
    folder: join(o.folder, `schedule-${number}`),
    run,
    next: () => (done++ < changes ? changeAt((done * run.steps) / (changes + 2), rng) : undefined),
    onRecord: () => undefined,
  });
}

/** Once so many steps are committed: somebody joins, leaves or is killed, for good. */
function changeAt(step: number, rng: Rng): Fault {
  const kind = ["join", "leave", "kill"][rng.below(3)] as "join" | "leave" | "kill";
  return {
    name: kind,
    async inject(fleet) {
      await fleet.until(120, () => fleet.ledger.next >= step || fleet.isOver);
      if (fleet.isOver || !(await fleet.scale(mostWorkers))) return undefined;
      const actedMs = Date.now();
      await change(fleet, kind, rng);
      return { actedMs: () => actedMs };
    },
  };
}

async function change(fleet: Fleet, kind: "join" | "leave" | "kill", rng: Rng): Promise<void> {
  const members = [...fleet.slots].filter(([, { isWanted }]) => isWanted).map(([slot]) => slot);
  const chosen = members[rng.below(members.length)] as number;
  const free = Array.from({ length: mostWorkers }, (_, slot) => slot).filter(
    (slot) => !members.includes(slot),
  );
  // The last one stays.
  if ((kind === "join" || members.length === 1) && free[0] !== undefined) await fleet.join(free[0]);
  else fleet.leave(chosen, kind === "kill" ? "SIGKILL" : "SIGTERM");
}
