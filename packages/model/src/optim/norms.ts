/** A worker's contribution to the norms of a step: sums over its shards, as nodes of the fixed trees of the contract's norm groups. */
import {
  chunkElements,
  type Layout,
  type NormSource,
  type NormSum,
  nodesOf,
  type Unit,
} from "@paddock/contract";
import type { VectorSpace } from "./vectors.js";

/** A worker's shard of one unit. */
export interface NormShard<V> {
  /** Its first element, a multiple of a chunk. */
  readonly start: number;
  /** The reduced gradient before clipping. */
  readonly grad: V;
  /** The student's weights. */
  readonly student: V;
}

/** The sums over the shards that a decision about the step needs; they do not depend on how units are cut. */
export function normNodes<V>(
  vectors: VectorSpace<V>,
  { units, normGroups }: Layout,
  shardOf: (unit: Unit) => NormShard<V>,
): NormSum[] {
  const shards = units.map(shardOf);
  const squares = (of: "grad" | "student") => (): Float64Array[] =>
    vectors.sumSquares(
      shards.map((shard) => shard[of]),
      chunkElements,
    );
  const sumsOf: Record<NormSource, () => Float64Array[]> = {
    gradient: squares("grad"),
    weight: squares("student"),
    product: () =>
      vectors.sumProducts(
        shards.map(({ grad, student }) => [grad, student] as const),
        chunkElements,
      ),
  };
  const sources = [...new Set(normGroups.map(({ source }) => source))];
  const sums = new Map(sources.map((source) => [source, sumsOf[source]()]));
  const indexes = new Map(units.map(({ name }, index) => [name, index]));
  return normGroups.flatMap((group) => {
    const index = indexes.get(group.unit) as number;
    const first = (shards[index]?.start ?? 0) / chunkElements;
    return nodesOf(group, first, sums.get(group.source)?.[index] as Float64Array);
  });
}
