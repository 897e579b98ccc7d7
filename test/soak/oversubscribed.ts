/** A healthy fleet on a machine with far too much to do: nobody may be taken for dead. */
import { type ChildProcess, spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { LedgerRecord, RunSpecInput } from "@paddock/contract";
import { type Fleet, startFleet } from "../support/fleet.js";
import { writeTinyRun } from "../support/paddock.js";

export interface Oversubscribed {
  readonly minutes: number;
  readonly leaseSeconds: number;
  /** Processes that compute without end, beside the fleet's. */
  readonly burners: number;
  readonly steps: number;
  /** Generations that began because somebody was taken for dead. */
  readonly falsePositives: number;
  /** Generations that began because workers differed in speed, as they do on such a machine. */
  readonly rebalanced: number;
  /** Longest and median seconds between two commits. */
  readonly longestSeconds: number;
  readonly medianSeconds: number;
  readonly ok: boolean;
}

const workers = 3;
/** Shorter than the default of 30 s, so that it is the harder case. */
const leaseSeconds = 3;

const changes: Partial<RunSpecInput> = {
  steps: 10_000_000,
  batchPerRank: 4,
  model: { width: 96, depth: 4, heads: 3, patchSize: 7, channels: 1, dropPathRate: 0.1 },
  fleet: { workers, leaseSeconds, redundancy: "shadow" },
  checkpoint: { everySteps: 20 },
};

/**
 * Trains for so many minutes with `factor` busy processes per core beside it.
 * @param say hears of the state twice a minute
 */
export async function trainOversubscribed(
  folder: string,
  { minutes, factor }: { readonly minutes: number; readonly factor: number },
  say: (text: string) => void,
): Promise<Oversubscribed> {
  const spec = writeTinyRun(folder, changes);
  const fleet = await startFleet({ directory: folder, name: "oversubscribed", spec });
  const burners: ChildProcess[] = [];
  try {
    fleet.startCoordinator();
    for (let i = 0; i < workers; i++) fleet.startWorker(`w${i}`);
    await fleet.committed(10, 120);
    for (let i = 0; i < factor * availableParallelism(); i++) {
      burners.push(spawn(process.execPath, ["-e", "for (;;);"], { stdio: "ignore" }));
    }
    const from = Date.now();
    while (Date.now() < from + 60_000 * minutes) {
      await sleep(30_000);
      const { steps, falsePositives, rebalanced, longestSeconds } = judge(fleet, from);
      const at = ((Date.now() - from) / 60_000).toFixed(1);
      say(
        `${at} min: ${steps} steps, ${falsePositives} false positives, rebalanced ${rebalanced} times, longest ${longestSeconds}`,
      );
    }
    const judged = judge(fleet, from);
    const ok = judged.falsePositives === 0 && judged.steps > 0;
    return { minutes, leaseSeconds, burners: burners.length, ...judged, ok };
  } finally {
    for (const burner of burners) burner.kill("SIGKILL");
    await fleet.stop();
  }
}

function judge(fleet: Fleet, from: number) {
  const since = fleet.ledger().filter(({ unixMs }) => unixMs >= from);
  const times = since
    .filter((record: LedgerRecord) => record.kind === "commit")
    .map(({ unixMs }) => unixMs);
  const gaps = times
    .slice(1)
    .map((time, i) => (time - (times[i] ?? time)) / 1000)
    .sort((a, b) => a - b);
  const generations = since.filter((record) => record.kind === "generation");
  const rebalanced = generations.filter(({ reason }) => reason.endsWith("differ in speed")).length;
  return {
    steps: times.length,
    falsePositives: generations.length - rebalanced,
    rebalanced,
    longestSeconds: gaps.at(-1) ?? Number.NaN,
    medianSeconds: gaps[gaps.length >> 1] ?? Number.NaN,
  };
}
