/** A small run for tests, and what its workers would say about a step: pure functions of the step and the rank. */
import {
  chunkElements,
  evenCuts,
  type Layout,
  nodesOf,
  parseRunSpec,
  type RankCuts,
  type RunSpec,
  type RunSpecInput,
  ranksOfCut,
  rngOf,
  shardOf,
  stepParts,
} from "@paddock/contract";
import type { Prepared, RankLosses, RankMonitor } from "@paddock/proto";

/** 4 logical ranks, 2 workers, 10 steps, a checkpoint and an evaluation every 4, segments of 3. */
export function exampleSpec(overrides: Partial<RunSpecInput> = {}): RunSpec {
  return parseRunSpec({
    steps: 10,
    logicalRanks: 4,
    batchPerRank: 2,
    model: { width: 24, depth: 2, heads: 2, patchSize: 4, channels: 1 },
    heads: { dino: { prototypes: 40, bottleneck: 8, hidden: 8, layers: 1 } },
    data: { kind: "idx", path: "/data" },
    crops: {
      global: { size: 16, scale: [0.3, 1] },
      local: { size: 8, scale: [0.1, 0.3] },
      mean: [0.5],
      std: [0.5],
    },
    exchange: { dtype: "fp32" },
    fleet: { workers: 2, segmentSteps: 3, leaseSeconds: 30 },
    checkpoint: { everySteps: 4, keep: 2 },
    evaluation: { everySteps: 4 },
    ...overrides,
  });
}

/** What `worker` of `workers` prepares for `step`. */
export function examplePrepared(
  spec: RunSpec,
  layout: Layout,
  position: {
    readonly generation: number;
    readonly step: number;
    readonly worker: number;
    readonly workers: number;
    /** Absent: equally many ranks each. */
    readonly cuts?: RankCuts;
  },
): Prepared {
  const { generation, step, worker, workers } = position;
  const cuts = position.cuts ?? evenCuts(spec.logicalRanks, workers);
  const { start, end } = ranksOfCut(cuts, worker);
  const ranks = Array.from({ length: end - start }, (_, i) => start + i);
  return {
    generation,
    step,
    finite: true,
    losses: ranks.map((rank) => rankLosses(spec.seed, step, rank)),
    monitors: isLookedAt(spec, step) ? ranks.map((rank) => rankMonitor(spec, step, rank)) : [],
    normRoots: layout.normGroups.flatMap((group) => {
      const unit = layout.units.findIndex(({ name }) => name === group.unit);
      const shard = shardOf(layout.units[unit]?.elements ?? 0, worker, workers);
      const [first, end] = [shard.start, shard.end].map((at) => Math.ceil(at / chunkElements));
      return nodesOf(group, first ?? 0, chunkSums(spec.seed + unit, step, first ?? 0, end ?? 0));
    }),
    seconds: Object.fromEntries(stepParts.map((part, index) => [part, 0.001 * (index + worker)])),
    exchangeBytes: 1000,
    peakGatheredBytes: 500,
    stateBytes: 400,
    images: ranks.length * spec.batchPerRank,
    offenders: [],
    eventLoopP99Ms: 2,
    badImages: 0,
    deviceAllocatedBytes: 3000,
    devicePeakBytes: 4000,
    deviceReservedBytes: 5000,
  };
}

function rankLosses(seed: number, step: number, rank: number): RankLosses {
  const rng = rngOf(seed, step, rank);
  const [dinoLocal, dinoGlobal, koleo, ibot] = [
    rng.uniform(),
    rng.uniform(),
    rng.normal(),
    rng.uniform(),
  ];
  return {
    rank,
    total: dinoLocal + dinoGlobal + koleo + ibot,
    dinoLocal,
    dinoGlobal,
    koleo,
    ibot,
    gram: 0,
  };
}

function isLookedAt({ monitor }: RunSpec, step: number): boolean {
  return monitor.everySteps > 0 && step % monitor.everySteps === 0;
}

/** A healthy teacher: a third of ln K each for entropy, evenness and information. */
function rankMonitor({ seed, heads }: RunSpec, step: number, rank: number): RankMonitor {
  const third = Math.log(heads.dino.prototypes) / 3;
  const noise = rngOf(seed, step, rank, 1).uniform() / 100;
  const features = { featureStd: 0.9 + noise, effectiveRank: 3 + noise };
  return { rank, teacherEntropy: third + noise, klToUniform: third - noise, ...features };
}

/** What the chunks [first, end) of a unit sum to: random. */
function chunkSums(seed: number, step: number, first: number, end: number): Float64Array {
  return Float64Array.from({ length: end - first }, (_, i) =>
    rngOf(seed, step, first + i).uniform(),
  );
}
