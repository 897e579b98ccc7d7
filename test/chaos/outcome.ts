/** How a run ended: the state and the samples that must be those of the undisturbed run. */
import { join } from "node:path";
import { consumedSamples } from "./audit.js";
import { Fleet } from "./fleet.js";
import { lostCommits } from "./ledger.js";
import type { ChaosRun } from "./spec.js";
import { finalState } from "./state-hash.js";

export interface Outcome {
  readonly step: number;
  readonly hash: string;
  readonly samples: readonly string[];
  readonly generations: number;
  /** Commits that were voided by a later generation. */
  readonly lostCommits: number;
  readonly seconds: number;
}

/** Of a run that is over. */
export function outcomeOf(fleet: Fleet, startedMs: number): Outcome {
  const { records, generation } = fleet.ledger;
  return {
    ...finalState(fleet.runDir),
    samples: consumedSamples(join(fleet.folder, "audit"), records),
    generations: generation,
    lostCommits: lostCommits(records),
    seconds: (Date.now() - startedMs) / 1000,
  };
}

/** In words, what of `outcome` is not as in the undisturbed run; undefined when nothing is. */
export function differenceOf(outcome: Outcome, undisturbed: Outcome): string | undefined {
  if (outcome.step !== undisturbed.step) {
    return `expected a final checkpoint of step ${undisturbed.step}, received ${outcome.step}`;
  }
  if (outcome.hash !== undisturbed.hash) {
    return `expected state ${undisturbed.hash.slice(0, 16)}, received ${outcome.hash.slice(0, 16)}`;
  }
  const at = undisturbed.samples.findIndex((sample, i) => sample !== outcome.samples[i]);
  if (at >= 0 || outcome.samples.length !== undisturbed.samples.length) {
    const i = at < 0 ? undisturbed.samples.length : at;
    return `expected ${undisturbed.samples.length} samples, received ${outcome.samples.length}; the first difference: expected step:sample ${undisturbed.samples[i]}, received ${outcome.samples[i]}`;
  }
  return undefined;
}

/** The run with `workers` workers and without a fault. */
export async function runUndisturbed(
  folder: string,
  run: Omit<ChaosRun, "workers">,
  workers: number,
): Promise<Outcome> {
  const startedMs = Date.now();
  const fleet = await Fleet.start(folder, { ...run, workers });
  try {
    const seconds = 60 + run.steps;
    if (!(await fleet.until(seconds, () => fleet.isOver))) {
      throw new Error(
        `the undisturbed run with ${workers} worker(s) did not end within ${seconds} s; see ${folder}/logs`,
      );
    }
    return outcomeOf(fleet, startedMs);
  } finally {
    await fleet.close();
  }
}
