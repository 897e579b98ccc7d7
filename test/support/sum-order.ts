/** The fixed tree over logical ranks as an order for the engine's collectives. */
import { ranksOf, subtreeRoots, sumTree, type TreeNode } from "@paddock/contract";
import type { SumOrder } from "@paddock/engine";

/** The subtree roots that one of `workers` contributes. */
export function rootsOf(logicalRanks: number, worker: number, workers: number): TreeNode[] {
  const { start, end } = ranksOf(logicalRanks, worker, workers);
  return subtreeRoots(start, end, logicalRanks);
}

/** How many vectors each worker contributes, and the order in which all are added. */
export function treeReduction(
  logicalRanks: number,
  workers: number,
): { readonly contributions: number[]; readonly order: SumOrder } {
  const roots = Array.from({ length: workers }, (_, worker) =>
    rootsOf(logicalRanks, worker, workers),
  );
  const all = roots.flat();
  const order = sumTree<SumOrder>(
    { start: 0, end: logicalRanks },
    ({ start, end }) => {
      const index = all.findIndex((root) => root.start === start && root.end === end);
      return index < 0 ? undefined : [index];
    },
    (left, right) => [...left, ...right, "add"],
  );
  return { contributions: roots.map((list) => list.length), order };
}
