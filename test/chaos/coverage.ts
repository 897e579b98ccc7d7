/** Which failpoints a short run passes that loses one worker, is left by another one, and is otherwise normal. */
import { type FailpointName, failpoints } from "@paddock/service-kit";
import { Fleet } from "./fleet.js";
import type { ChaosRun } from "./spec.js";

export interface Coverage {
  readonly passed: readonly string[];
  /** Registered, and not passed. */
  readonly missing: readonly FailpointName[];
}

export async function failpointCoverage(folder: string, run: ChaosRun): Promise<Coverage> {
  const fleet = await Fleet.start(folder, run, 0);
  try {
    fleet.coordinator.arm("*=log");
    for (let slot = 0; slot < run.workers; slot++) {
      await fleet.join(slot);
      fleet.slots.get(slot)?.role.arm("*=log");
    }
    const reaches = async (step: number): Promise<void> => {
      if (await fleet.until(60, () => fleet.ledger.next >= step)) return;
      throw new Error(`expected step ${step} within 60 s; see ${folder}/logs`);
    };
    await reaches(Math.floor(run.steps / 4));
    fleet.slots.get(0)?.role.signal("SIGKILL");
    await reaches(Math.floor(run.steps / 2));
    fleet.slots.get(1)?.role.signal("SIGTERM");
    if (!(await fleet.until(60, () => fleet.isOver))) {
      throw new Error(`expected the end of the run within 60 s; see ${folder}/logs`);
    }
    const passed = [...new Set(fleet.hits.map(({ failpoint }) => failpoint))].sort();
    const names = Object.keys(failpoints) as FailpointName[];
    return { passed, missing: names.filter((name) => !passed.includes(name)) };
  } finally {
    await fleet.close();
  }
}
