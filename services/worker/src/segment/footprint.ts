/**
 * What a worker holds in memory and sends per step: arithmetic on the spec, by the functions that allocate and send. Its test holds it to
 * real shards, gathers and messages.
 */
import {
  evenCuts,
  frozenUnitsOf,
  layoutOf,
  type RankCuts,
  type RunSpec,
  ranksOfCut,
  type StateKind,
  shardOf,
  sizeOf,
  statePartsOf,
  subtreeRoots,
  type Unit,
} from "@paddock/contract";
import { visitsOf } from "@paddock/model";

/** Bytes that a worker sends to and receives from its peers in one step. */
interface Traffic {
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

export interface Footprint {
  /** Values of the student in its shards, padding included. */
  readonly shardElements: number;
  /** Its shards in fp32, by kind; 0 for a kind that the run has not. */
  readonly stateBytes: Readonly<Record<StateKind, number>>;
  /** The neighbour's shards: held with `fleet.redundancy: shadow`, and what they would take without. 0 for one worker. */
  readonly shadowBytes: number;
  /** Gathered weights of the units in use and under way, in fp32, at the peak of a step. */
  readonly gatheredBytes: number;
  /**
   * Gradients at the end of backward, if nothing of them has been summed before: own and received tree nodes on its shards, and the
   * largest unit of each of its ranks; with shadows also the neighbour's reduced gradient. An upper estimate.
   */
  readonly gradientBytes: number;
  /** The copy of its shards that its peers gather, in the exchange dtype; 0 for one worker. */
  readonly publishedBytes: number;
  /** Its part of a checkpoint, without the file's header and centres; so much is also held while one is written. */
  readonly checkpointBytes: number;
  readonly traffic: {
    readonly weights: Traffic;
    readonly gradients: Traffic;
    /** With `fleet.redundancy: shadow`, and what it would be without. */
    readonly shadow: Traffic;
  };
}

/** Bytes of a value on its way. */
export function bytesPerValue({ exchange }: RunSpec): number {
  return exchange.dtype === "fp16" ? 2 : 4;
}

/** @param worker index in [0, workers) @param cuts absent: equally many ranks each */
export function footprintOf(
  spec: RunSpec,
  worker: number,
  workers: number,
  cuts: RankCuts = evenCuts(spec.logicalRanks, workers),
): Footprint {
  const layout = layoutOf(spec);
  const travelling = bytesPerValue(spec);
  const own = shardElements(layout.units, worker, workers);
  const frozen = shardElements(frozenUnitsOf(spec), worker, workers);
  const hasPeers = workers > 1;
  const keptFor = (worker + workers - 1) % workers;
  const shadow = hasPeers ? shardElements(layout.units, keptFor, workers) : 0;
  const parts = statePartsOf(spec, layout);
  const bytesOf = (index: number) =>
    parts.map(({ kind, units }) => [kind, 4 * shardElements(units, index, workers)] as const);
  const saved = parts.filter((part) => part.saved);
  const roots = (of: number): number => {
    const { start, end } = ranksOfCut(cuts, of);
    return subtreeRoots(start, end, spec.logicalRanks).length;
  };
  const peers = Array.from({ length: workers }, (_, peer) => peer).filter(
    (peer) => peer !== worker,
  );
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
  const gradients = {
    sentBytes:
      sum(peers.map((peer) => shardElements(layout.units, peer, workers))) *
      (hasPeers ? roots(worker) * travelling : 0),
    receivedBytes: sum(peers.map(roots)) * own * travelling,
  };
  const shadowTraffic = {
    sentBytes: hasPeers ? own * travelling : 0,
    receivedBytes: shadow * travelling,
  };
  const isShadowed = hasPeers && spec.fleet.redundancy === "shadow";
  const largestUnit = Math.max(...layout.units.map(({ elements }) => elements));
  return {
    shardElements: own,
    stateBytes: Object.fromEntries(bytesOf(worker)) as Record<StateKind, number>,
    shadowBytes: hasPeers ? sum(bytesOf(keptFor).map(([, bytes]) => bytes)) : 0,
    gatheredBytes: gatheredPeakBytes(spec, hasPeers),
    gradientBytes:
      4 * own * roots(worker) +
      gradients.receivedBytes +
      4 * largestUnit * sizeOf(ranksOfCut(cuts, worker)) +
      (isShadowed ? 4 * shadow + shadowTraffic.sentBytes : 0),
    publishedBytes: hasPeers ? (2 * own + frozen) * travelling : 0,
    checkpointBytes: 4 * sum(saved.map(({ units }) => shardElements(units, worker, workers))),
    traffic: {
      weights: weightsTraffic(spec, worker, workers),
      gradients,
      shadow: shadowTraffic,
    },
  };
}

/** Through Redis weights are published once and read at each visit; collectives send them at each visit. */
function weightsTraffic(spec: RunSpec, worker: number, workers: number): Traffic {
  if (workers === 1) return { sentBytes: 0, receivedBytes: 0 };
  const travelling = bytesPerValue(spec);
  const visited = visitedUnits(spec);
  const ownOfVisits = shardElements(visited, worker, workers);
  const all = visited.reduce((total, { elements }) => total + elements, 0);
  const published =
    2 * shardElements(layoutOf(spec).units, worker, workers) +
    shardElements(frozenUnitsOf(spec), worker, workers);
  const sent = spec.exchange.kind === "redis" ? published : ownOfVisits * (workers - 1);
  return { sentBytes: sent * travelling, receivedBytes: (all - ownOfVisits) * travelling };
}

/** One unit in use and, with peers, the next one on its way. */
function gatheredPeakBytes(spec: RunSpec, hasPeers: boolean): number {
  const visited = visitedUnits(spec);
  const held = visited.map(
    ({ elements }, i) => elements + (hasPeers ? (visited[i + 1]?.elements ?? 0) : 0),
  );
  return 4 * Math.max(...held);
}

/** The units that a step gathers, in its order, each as often as it is gathered. */
function visitedUnits(spec: RunSpec): Unit[] {
  const byName = (units: readonly Unit[]) => new Map(units.map((unit) => [unit.name, unit]));
  const own = byName(layoutOf(spec).units);
  const frozen = byName(frozenUnitsOf(spec));
  return visitsOf(spec).map(
    ({ side, unit }) => (side === "frozen" ? frozen : own).get(unit) as Unit,
  );
}

function shardElements(units: readonly Unit[], worker: number, workers: number): number {
  return units.reduce((sum, { elements }) => sum + sizeOf(shardOf(elements, worker, workers)), 0);
}
