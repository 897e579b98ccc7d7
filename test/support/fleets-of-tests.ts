/** Fleets for the tests of one file: what is left of them is killed after each test. */
import type { RunSpecInput } from "@paddock/contract";
import { type Fleet, startFleet } from "./fleet.js";
import { writeTinyRun } from "./paddock.js";

/** Steps of a tiny run last 10 ms, and a command line a second: without this the run can be over before anything happens to it. */
export const paced = { PADDOCK_FAILPOINTS: "worker.batch.ready=delay@*:100" };

/**
 * Returns what prepares a fleet: Redis and the spec of a tiny run in `directory`, no process yet.
 * @param afterEach of the test runner
 */
export function fleetsOfTests(directory: string, afterEach: (hook: () => Promise<void>) => void) {
  const fleets: Fleet[] = [];
  afterEach(async () => {
    for (const fleet of fleets.splice(0)) await fleet.stop();
  });
  return async (
    name: string,
    changes: Partial<RunSpecInput>,
    environment: NodeJS.ProcessEnv = {},
  ): Promise<Fleet> => {
    const spec = writeTinyRun(directory, changes);
    const fleet = await startFleet({ directory, name, spec, environment });
    fleets.push(fleet);
    return fleet;
  };
}
