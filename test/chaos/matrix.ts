/** `--matrix`: every failpoint with every action that it has, several of them in one run after the other. */
import { join } from "node:path";
import { rngOf } from "@paddock/contract";
import { pointFault } from "./faults.js";
import { type FaultyRun, runUnderFaults } from "./faulty-run.js";
import type { Fault, FaultRecord } from "./inject.js";
import type { Outcome } from "./outcome.js";
import { factsOf, type PointFault } from "./points.js";
import type { ChaosRun } from "./spec.js";

export interface MatrixCell extends PointFault {
  readonly record: FaultRecord | undefined;
  /** Of the run in which it was tried: undefined when the final state was the undisturbed one. */
  readonly broken: string | undefined;
}

export interface MatrixOptions {
  readonly folder: string;
  readonly run: ChaosRun;
  readonly undisturbed: Outcome;
  readonly faults: readonly PointFault[];
  readonly seed: number;
  readonly keep: boolean;
  readonly onRecord: (record: FaultRecord) => void;
  readonly onRun: (run: FaultyRun, left: number) => void;
}

/** A fault that did not act in its run is tried again in the next ones. */
const mostTries = 4;

/** Runs until every fault has acted once, or was tried often enough. */
export async function runMatrix(o: MatrixOptions): Promise<MatrixCell[]> {
  const cells: MatrixCell[] = [];
  let waiting = o.faults.map((fault) => ({ fault, tries: 0 }));
  for (let number = 0; waiting.length > 0; number++) {
    const rng = rngOf(o.seed, number);
    const tried: (typeof waiting)[number][] = [];
    const run = await runUnderFaults({
      ...o,
      oneByOne: true,
      folder: join(o.folder, `matrix-${number}`),
      next(fleet) {
        const isLate = fleet.ledger.next > o.run.steps - stepsForTheEnd;
        const open = waiting.filter((cell) => !tried.includes(cell));
        const next = isLate ? undefined : open.find(({ fault }) => !isAtTheEnd(fault));
        // One fault at the end of each run: it ends only once.
        const hasEnd = tried.some(({ fault }) => isAtTheEnd(fault));
        const last = hasEnd ? undefined : open.find(({ fault }) => isAtTheEnd(fault));
        const chosen = next ?? last;
        if (!chosen) return undefined;
        tried.push(chosen);
        return next ? pointFault(next.fault, rng) : atTheEnd(pointFault(chosen.fault, rng), o.run);
      },
      onRecord: o.onRecord,
    });
    const settled = tried.filter((cell, i) => {
      const record = run.records[i];
      const hasActed = record?.result === "recovered" || isEnded(cell.fault, record);
      cell.tries++;
      if (!hasActed && !run.broken && cell.tries < mostTries) return false;
      const missed = hasActed ? undefined : `it did not act in ${cell.tries} runs`;
      const lost = lossOf(cell.fault, o.run, record);
      cells.push({ ...cell.fault, record, broken: run.broken ?? missed ?? lost });
      return true;
    });
    waiting = waiting.filter((cell) => !settled.includes(cell));
    o.onRun(run, waiting.length);
  }
  return cells;
}

/** From here on a fault would find the run over. */
const stepsForTheEnd = 6;

/**
 * With a second copy of every shard no single fault may void a commit. Points that are passed when somebody goes have one copy less: there
 * it holds from three workers on; at those of a loss somebody was killed to get there.
 */
function lossOf(
  { point }: PointFault,
  { redundancy, workers }: ChaosRun,
  record: FaultRecord | undefined,
): string | undefined {
  const { at } = factsOf(point);
  const isAlone = at === "step" || at === "checkpoint" || at === "evaluation";
  const isCovered = isAlone || (workers > 2 && at !== "loss");
  const lost = record?.lostCommits ?? 0;
  if (redundancy === "none" || !isCovered || lost === 0) return undefined;
  return `${lost} commits were computed again`;
}

function atTheEnd(fault: Fault, { steps }: ChaosRun): Fault {
  return {
    name: fault.name,
    async inject(fleet) {
      await fleet.until(120, () => fleet.ledger.next > steps - stepsForTheEnd);
      return fault.inject(fleet);
    },
  };
}

function isAtTheEnd({ point }: PointFault): boolean {
  return factsOf(point).at === "end";
}

function isEnded(fault: PointFault, record: FaultRecord | undefined): boolean {
  return isAtTheEnd(fault) && record?.result === "ended" && record.hasActed;
}
