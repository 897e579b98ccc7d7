/** The signs of collapse of a step as one set of numbers: the same bits for every W. */
import { type Monitor, sumTree, type TreeNode } from "@paddock/contract";
import type { Prepared, RankMonitor } from "@paddock/proto";

/** Means over logical ranks, summed in tree order; undefined unless every rank was looked at. */
export function meanMonitor(
  logicalRanks: number,
  prepared: readonly Prepared[],
): Monitor | undefined {
  const byRank = new Map(prepared.flatMap(({ monitors }) => monitors.map((m) => [m.rank, m])));
  if (byRank.size < logicalRanks) return undefined;
  const mean = (part: Exclude<keyof RankMonitor, "rank">): number => {
    const leaf = ({ start, end }: TreeNode): number | undefined =>
      end - start === 1 ? byRank.get(start)?.[part] : undefined;
    const sum = sumTree({ start: 0, end: logicalRanks }, leaf, (left, right) => left + right);
    return sum / logicalRanks;
  };
  return {
    teacherEntropy: mean("teacherEntropy"),
    klToUniform: mean("klToUniform"),
    featureStd: mean("featureStd"),
    effectiveRank: mean("effectiveRank"),
  };
}
