/**
 * The sums that a sharded step needs before it can be applied: of the squares of a submodule's gradient, or of each parameter's,
 * and for LARS also of each weight's squares and of the products of both. Every sum is over whole chunks in the order of a fixed
 * tree, so it has the same bits for every number of workers: a worker reports the nodes that lie in its shard, whoever adds
 * them up obtains the undivided sum.
 */
import { PaddockError } from "../errors.js";
import { chunkElements, chunksIn } from "../shards.js";
import type { RunSpec } from "../spec/run.js";
import { subtreeRoots, sumTree, type TreeNode } from "../tree.js";
import type { Parameter, Submodule, Unit } from "./unit.js";

/** What is summed: gradient squares, weight squares, or gradient times weight. */
export type NormSource = "gradient" | "weight" | "product";

/** A run of chunks of one unit that is summed by a tree of its own. */
export interface NormGroup {
  readonly source: NormSource;
  /** A submodule or a parameter. Groups of one name and source are added up in order. */
  readonly name: string;
  readonly submodule: Submodule;
  readonly unit: string;
  /** Its chunks [start, end) of the unit's vector. */
  readonly start: number;
  readonly end: number;
}

/** The sum over the chunks [start, end) of a vector: a unit's gradient, or as `vectorOf` names it. */
export interface NormSum {
  readonly unit: string;
  readonly start: number;
  readonly end: number;
  readonly sum: number;
}

type Optimizer = RunSpec["optimizer"];

/** Whether a step needs norms of single parameters; then each parameter begins a chunk. */
export function needsTensorNorms({ kind, clipBy }: Optimizer): boolean {
  return kind === "lars" || clipBy === "tensor";
}

/** Whether LARS adapts the rate of this parameter, and decays it: those of more than one axis (DINO's utils.py). */
export function isAdapted({ kind }: Optimizer, { shape }: Pick<Parameter, "shape">): boolean {
  return kind === "lars" && shape.length > 1;
}

/** All groups in the order in which they are added. A parameter without a gradient has none of its own. */
export function normGroupsOf(units: readonly Unit[], optimizer: Optimizer): NormGroup[] {
  if (!needsTensorNorms(optimizer)) {
    return units.map(({ name: unit, submodule, elements }) => {
      const chunks = { start: 0, end: chunksIn(elements) };
      return { source: "gradient", name: submodule, submodule, unit, ...chunks };
    });
  }
  return units.flatMap(({ name: unit, submodule, parameters }) =>
    parameters
      .filter(({ trainable }) => trainable)
      .flatMap((parameter) => {
        const { name, offset, elements } = parameter;
        const start = offset / chunkElements;
        const place = { name, submodule, unit, start, end: start + chunksIn(elements) };
        const sources: readonly NormSource[] = isAdapted(optimizer, parameter)
          ? ["gradient", "weight", "product"]
          : ["gradient"];
        return sources.map((source) => ({ source, ...place }));
      }),
  );
}

/** What a group is called in messages: its name, or e.g. "weight backbone.cls_token". */
export function normKey(source: NormSource, name: string): string {
  return source === "gradient" ? name : `${source} ${name}`;
}

/** What the vector is called that a group's chunks lie in: its unit, or e.g. "product embed". */
function vectorOf({ source, unit }: NormGroup): string {
  return normKey(source, unit);
}

const add = (left: number, right: number): number => left + right;

/**
 * The nodes of a group's tree that lie in a shard, with their sums.
 * @param first the shard's first chunk in its unit
 * @param sums of the shard's chunks
 */
export function nodesOf(group: NormGroup, first: number, sums: Float64Array): NormSum[] {
  const { start: base } = group;
  const start = Math.max(base, first);
  const end = Math.max(start, Math.min(group.end, first + sums.length));
  if (start === end) return [];
  const leaf = (node: TreeNode): number | undefined =>
    node.end - node.start === 1 ? sums[base + node.start - first] : undefined;
  return subtreeRoots(start - base, end - base, group.end - base).map((node) => ({
    unit: vectorOf(group),
    start: base + node.start,
    end: base + node.end,
    sum: sumTree(node, leaf, add),
  }));
}

/** The sum of each group, by key. @throws PaddockError `internal` if a chunk is missing. */
function groupSums(groups: readonly NormGroup[], nodes: readonly NormSum[]): Map<string, number> {
  const keyOf = (unit: string, start: number, end: number): string => `${unit} ${start} ${end}`;
  const known = new Map(nodes.map(({ unit, start, end, sum }) => [keyOf(unit, start, end), sum]));
  const sums = new Map<string, number>();
  for (const group of groups) {
    const vector = vectorOf(group);
    const nodeSum = ({ start, end }: TreeNode): number | undefined => {
      const sum = known.get(keyOf(vector, group.start + start, group.start + end));
      if (sum === undefined && end - start === 1) throw missing(vector, group.start + start);
      return sum;
    };
    const sum = sumTree({ start: 0, end: group.end - group.start }, nodeSum, add);
    const key = normKey(group.source, group.name);
    const before = sums.get(key);
    sums.set(key, before === undefined ? sum : before + sum);
  }
  return sums;
}

/** Norms before clipping. */
export interface StepNorms {
  /** Of each submodule's gradient. */
  readonly submodules: Readonly<Record<string, number>>;
  /** All that an update needs, by key: norms of gradients and weights, sums of products. */
  readonly all: Readonly<Record<string, number>>;
}

/** What the workers' nodes say together. @throws PaddockError `internal` if a chunk is missing. */
export function stepNorms(groups: readonly NormGroup[], nodes: readonly NormSum[]): StepNorms {
  const sums = groupSums(groups, nodes);
  const squares = new Map<string, number>();
  for (const [name, submodule] of new Map(
    groups.filter(({ source }) => source === "gradient").map((g) => [g.name, g.submodule]),
  )) {
    const sum = sums.get(name) ?? 0;
    const before = squares.get(submodule);
    squares.set(submodule, before === undefined ? sum : before + sum);
  }
  const rooted = (entries: Iterable<[string, number]>): Record<string, number> =>
    Object.fromEntries([...entries].map(([key, sum]) => [key, Math.sqrt(sum)]));
  const submodules = rooted(squares);
  const products = groups
    .filter(({ source }) => source === "product")
    .map(({ source, name }) => normKey(source, name));
  const own = rooted(sums);
  for (const key of products) own[key] = sums.get(key) ?? 0;
  return { submodules, all: { ...submodules, ...own } };
}

function missing(vector: string, chunk: number): PaddockError {
  return new PaddockError(
    "internal",
    `expected the squared gradient norm of unit ${vector}, chunk ${chunk} in the workers' prepared messages, received none; were all processes built from one commit?`,
  );
}
