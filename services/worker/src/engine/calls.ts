/** What main thread and engine thread ask of each other. Arrays on SharedArrayBuffers cross without a copy. */
import type {
  GradNorms,
  NormSum,
  RankCuts,
  RunSpec,
  StateKind,
  StepSeconds,
} from "@paddock/contract";
import type { Centers, RankBatch, RankMonitor } from "@paddock/model";
import type { Seen } from "../segment/offender.js";

/** This worker's shards: for each kind and unit, the fp32 values of its range. */
export type StateOf<V> = Readonly<Record<StateKind, Readonly<Record<string, V>>>>;

/**
 * Shards on the host's shared memory. Where the engine keeps vectors on a device they are as of the last `enter` or `syncState`.
 */
export type ShardState = StateOf<Float32Array>;

/** The shards of another worker of the generation, kept by applying the same gradients. */
export interface ShadowOf<V> {
  /** Whose: its index in the generation. */
  readonly worker: number;
  readonly state: StateOf<V>;
}

export interface EngineFacts {
  readonly name: string;
  readonly device: string;
  readonly threads: number;
  readonly why: string;
}

/** One generation's view of the run, as the engine thread needs it. */
export interface Membership {
  readonly generation: number;
  readonly worker: number;
  readonly workers: number;
  /** Which logical ranks each worker executes; absent: equally many. */
  readonly cuts?: RankCuts;
}

export interface RankLossReport {
  readonly rank: number;
  readonly total: number;
  readonly dinoLocal: number;
  readonly dinoGlobal: number;
  readonly koleo: number;
  readonly ibot: number;
  readonly gram: number;
}

export interface StepReport {
  readonly losses: readonly RankLossReport[];
  readonly monitors: readonly RankMonitor[];
  /** Of the reduced gradient, after division by L. */
  readonly normRoots: readonly NormSum[];
  readonly finite: boolean;
  /** What was seen first here of each kind of value that is not finite; empty: nothing. */
  readonly offenders: readonly Seen[];
  readonly seconds: Partial<StepSeconds>;
  readonly peakGatheredBytes: number;
}

/** Bytes of a GPU's memory: held by tensors, held at most so far, reserved for them. Zeros on CPUs. */
export interface DeviceBytes {
  readonly deviceAllocatedBytes: number;
  readonly devicePeakBytes: number;
  readonly deviceReservedBytes: number;
}

/** Main thread -> engine thread. */
export type EngineCalls = {
  open(a: {
    name: RunSpec["engine"]["name"];
    threads: number;
    /** `cpu`, `cuda:<n>`; undefined: the GPUs in turn by `localRank` if the engine sees any. */
    device: string | undefined;
    localRank: number;
    /** `library`: vectors as on a GPU, also on a CPU. For tests. */
    vectors?: "library";
  }): Promise<EngineFacts>;
  /** Takes the shards of a generation; fills student and teacher of the units in `initialise` from the seed. */
  enter(a: {
    spec: RunSpec;
    membership: Membership;
    state: ShardState;
    shadow: ShadowOf<Float32Array> | null;
    initialise: readonly string[];
    centers: Centers | null;
  }): Promise<void>;
  /** Forward, backward and reduce-scatter of one step: the state is not touched. */
  compute(a: {
    step: number;
    scale: number;
    batches: readonly RankBatch[];
  }): Promise<StepReport & DeviceBytes>;
  /** AdamW and EMA on the shards with the gradient of the last `compute`. Returns its seconds. */
  update(a: { step: number; gradNorm: GradNorms }): Promise<number>;
  /** Brings the shards that were given to `enter` up to date. */
  syncState(a: Record<string, never>): Promise<void>;
  /** Frees what a `compute` that failed has left behind, and brings the shards up to date. A prepared gradient stays. */
  rest(a: Record<string, never>): Promise<void>;
  /** Drops the gradient of the last `compute`. */
  skip(a: { step: number }): Promise<void>;
  /** This worker's shards in the exchange dtype, as parts "student/<unit>", "teacher/<unit>", "frozen/<unit>". */
  encodeWeights(a: Record<string, never>): Promise<Map<string, Uint8Array>>;
  centers(a: Record<string, never>): Promise<Centers>;
  /** Teacher features of the images: cls after the final norm, [count, D]. */
  features(a: { step: number; images: Float32Array; count: number }): Promise<Float32Array>;
  knn(a: {
    bank: Float32Array;
    bankLabels: Int32Array;
    queries: Float32Array;
    queryLabels: Int32Array;
  }): Promise<number>;
  /** Patch features [count, P, D] and cls attention of the last block [count, heads, P], for pictures. */
  inspect(a: { step: number; images: Float32Array; count: number }): Promise<{
    patches: Float32Array;
    attention: Float32Array;
    heads: number;
    positions: number;
  }>;
};

/** Engine thread -> main thread, while a call of the above runs. */
export type HostCalls = {
  /**
   * The published bytes of one unit from every peer, indexed by worker (own entry: empty). `everyone`: all workers ask for
   * it at this point of their step; else this one does by itself.
   */
  fetchUnit(a: {
    step: number;
    part: string;
    expectedBytes: readonly number[];
    everyone: boolean;
  }): Promise<Uint8Array[]>;
  /** As `Exchange.allToAll`. */
  allToAll(a: {
    step: number;
    key: string;
    outgoing: readonly Uint8Array[];
    expectedBytes: readonly number[];
  }): Promise<Uint8Array[]>;
  phase(a: { step: number; phase: string }): void;
};
