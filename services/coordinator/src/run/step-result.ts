/** What W prepared messages say together about one step: the same bits for every W. */
import {
  type GradNorms,
  type Layout,
  type Losses,
  type Monitor,
  PaddockError,
  type StepSeconds,
  stepNorms,
  stepParts,
  sumTree,
  type TreeNode,
} from "@paddock/contract";
import type { Prepared, RankLosses } from "@paddock/proto";
import { meanMonitor } from "./mean-monitor.js";

export interface StepResult {
  /** Means over logical ranks, summed in tree order, in nats. */
  readonly losses: Losses;
  /** Norm of the reduced gradient before clipping, by submodule. */
  readonly gradNorm: GradNorms;
  /** What the update needs: those norms, and those of single parameters if the optimizer asks for them. */
  readonly updateNorms: GradNorms;
  /** At the steps that the spec's monitor names. */
  readonly monitor: Monitor | undefined;
  /** Every worker said so, and losses and norms are too. */
  readonly finite: boolean;
  readonly seconds: StepSeconds;
  readonly images: number;
  /** Bytes sent to peers by all workers. */
  readonly exchangeBytes: number;
}

const add = (left: number, right: number): number => left + right;

/** @param prepared one message per worker, in any order. An incomplete set is an `internal` error. */
export function stepResult(
  layout: Layout,
  logicalRanks: number,
  prepared: readonly Prepared[],
): StepResult {
  const losses = meanLosses(logicalRanks, prepared);
  const norms = stepNorms(
    layout.normGroups,
    prepared.flatMap(({ normRoots }) => normRoots),
  );
  const numbers = [...Object.values(losses), ...Object.values(norms.all)];
  return {
    losses,
    gradNorm: norms.submodules,
    updateNorms: norms.all,
    monitor: meanMonitor(logicalRanks, prepared),
    finite: prepared.every(({ finite }) => finite) && numbers.every(Number.isFinite),
    seconds: slowestSeconds(prepared),
    images: prepared.reduce((sum, { images }) => sum + images, 0),
    exchangeBytes: prepared.reduce((sum, { exchangeBytes }) => sum + exchangeBytes, 0),
  };
}

function meanLosses(logicalRanks: number, prepared: readonly Prepared[]): Losses {
  const byRank = new Map(prepared.flatMap(({ losses }) => losses.map((l) => [l.rank, l] as const)));
  const mean = (part: Exclude<keyof RankLosses, "rank">): number => {
    const leaf = ({ start, end }: TreeNode): number | undefined => {
      if (end - start > 1) return undefined;
      const losses = byRank.get(start);
      if (!losses) throw missing(`the losses of logical rank ${start}`);
      return losses[part];
    };
    return sumTree({ start: 0, end: logicalRanks }, leaf, add) / logicalRanks;
  };
  return {
    total: mean("total"),
    dinoLocal: mean("dinoLocal"),
    dinoGlobal: mean("dinoGlobal"),
    koleo: mean("koleo"),
    ibot: mean("ibot"),
    gram: mean("gram"),
  };
}

function slowestSeconds(prepared: readonly Prepared[]): StepSeconds {
  const total = ({ seconds }: Prepared): number => Object.values(seconds).reduce(add, 0);
  const slowest = prepared.reduce((a, b) => (total(b) > total(a) ? b : a));
  return Object.fromEntries(
    stepParts.map((part) => [part, slowest.seconds[part] ?? 0]),
  ) as StepSeconds;
}

function missing(what: string): PaddockError {
  return new PaddockError(
    "internal",
    `expected ${what} in the workers' prepared messages, received none; were all processes built from one commit?`,
  );
}
