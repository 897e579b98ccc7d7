/** The state of a run in the coordinator: what the ledger holds, and who is there. Plain values; `decide` replaces them. */
import {
  type ErrorCode,
  type Layout,
  layoutOf,
  type ManifestFile,
  type RankCuts,
  type RunSpec,
  type StepRecord,
} from "@paddock/contract";
import type { Holding, Prepared } from "@paddock/proto";
import { type CollapseWatch, initialWatch } from "./collapse.js";
import type { DurableState } from "./durable.js";

/** A connection of a worker: never reused, unlike names. */
export type WorkerId = number;

export interface WorkerInfo {
  readonly id: WorkerId;
  readonly name: string;
  readonly host: string;
  readonly pid: number;
  readonly engine: string;
  readonly device: string;
  /** host:port of its PeerService. */
  readonly peerAddress: string;
  /** What it holds at rest, as it said last; of no use while it works. */
  readonly holdings: readonly Holding[];
}

export interface WorkerState extends WorkerInfo {
  /** The generation of which it has to say that it rests and what it holds; null: none. */
  readonly owesHeld: number | null;
  /** Why it wants to go; null: it does not. */
  readonly leaving: string | null;
  /** Step and phase of its last Progress. */
  readonly step: number;
  readonly phase: string;
  /** Indices of the members for whose tensors it says it waits. */
  readonly waitingOn: readonly number[];
  /** When it last moved, in unix milliseconds. */
  readonly lastProgressMs: number;
  /** Persistent state, and gathered units at the peak, in bytes; of its last Prepared. */
  readonly stateBytes: number;
  readonly peakGatheredBytes: number;
  /** 99th percentile of its event-loop delay, in milliseconds; of its last Prepared. */
  readonly eventLoopP99Ms: number;
  /** Images it replaced because they could not be decoded, so far. */
  readonly badImages: number;
  /** Seconds of computing per logical rank in its last committed steps, oldest first. */
  readonly paces: readonly number[];
  /** Device memory that its tensors hold, held at most, and that is reserved for them; of its last Prepared; 0 on CPUs. */
  readonly deviceAllocatedBytes: number;
  readonly devicePeakBytes: number;
  readonly deviceReservedBytes: number;
}

/** A checkpoint that some worker still owes its file for. */
export interface PendingCheckpoint {
  readonly step: number;
  /** By worker index; null: not yet written. */
  readonly files: readonly (ManifestFile | null)[];
  /** The manifest is being written. */
  readonly complete: boolean;
  readonly scaler: { readonly scale: number; readonly goodSteps: number };
  readonly sinceMs: number;
}

/** The generation in force. */
export interface ActiveGeneration {
  readonly generation: number;
  /** Ids of its workers, by index. */
  readonly members: readonly WorkerId[];
  /** Member w executes the logical ranks [cuts[w], cuts[w + 1]). */
  readonly cuts: RankCuts;
  readonly startStep: number;
  readonly startMs: number;
  /** Who prepared step `durable.next`, by index. */
  readonly prepared: readonly (Prepared | null)[];
  readonly pendingCheckpoints: readonly PendingCheckpoint[];
  /** Steps whose evaluation worker 0 owes. */
  readonly pendingEvaluations: readonly number[];
  /** The step at which the generation is replaced by one of other members or cuts, once its checkpoints are durable; no step is decided before. */
  readonly regroupAt: number | null;
  /** The last decision said stop. */
  readonly stopping: boolean;
  /** Steps decided by this generation. */
  readonly commits: number;
  /** Steps in a row, up to the last one, that have shown that other cuts would be clearly better. */
  readonly unevenSteps: number;
}

/** A checkpoint whose files are all there, of a generation that ended while its manifest was being written. */
interface OrphanCheckpoint extends PendingCheckpoint {
  readonly generation: number;
}

/** Why there is no generation, and until when that may last. */
interface Waiting {
  /** Becomes the reason of the next generation. */
  readonly reason: string;
  readonly sinceMs: number;
  /** Not before: a pause after generations that achieved nothing. */
  readonly notBeforeMs: number;
  /** From then on fewer workers than wanted will do; Infinity: never. */
  readonly fewerFromMs: number;
  /** The same, if those who are there hold the whole state between them. */
  readonly fewerHoldersFromMs: number;
}

export type Outcome =
  | { readonly kind: "finished" }
  | { readonly kind: "interrupted"; readonly reason: string }
  | { readonly kind: "failed"; readonly code: ErrorCode; readonly reason: string };

/** Sums since this coordinator started; metrics count them. */
export interface Counters {
  readonly steps: number;
  /** Skipped steps by reason. */
  readonly skippedOverflow: number;
  readonly skippedLoss: number;
  readonly skippedGradient: number;
  /** Times that guards made the run go back, and that its loss spiked. */
  readonly rollbacks: number;
  readonly spikes: number;
  readonly images: number;
  readonly exchangeBytes: number;
  readonly staleMessages: number;
  readonly badImages: number;
  readonly failedCheckpoints: number;
  /** Times that the run began to show a sign of collapse. */
  readonly alerts: number;
}

export interface RunState {
  readonly durable: DurableState;
  readonly layout: Layout;
  /** Connected workers in order of arrival; members and spares. */
  readonly workers: readonly WorkerState[];
  /** How many workers the run should have. */
  readonly wanted: number;
  readonly active: ActiveGeneration | null;
  readonly waiting: Waiting;
  /** The next generation starts when these are durable: it may start from them. */
  readonly orphans: readonly OrphanCheckpoint[];
  readonly paused: boolean;
  /** Why the run is draining, or null. */
  readonly draining: string | null;
  readonly checkpointRequested: boolean;
  /** Checkpoints in a row that could not be written. */
  readonly failedCheckpoints: number;
  readonly outcome: Outcome | null;
  /** Generations in a row that ended without a decision, and why the last one did. */
  readonly barren: number;
  readonly lastFailure: { readonly code: ErrorCode; readonly reason: string } | null;
  readonly counters: Counters;
  /** The last commits of this generation, newest last: for the rate. */
  readonly recent: readonly { readonly unixMs: number; readonly images: number }[];
  readonly lastStep: StepRecord | null;
  readonly watch: CollapseWatch;
  /** For people: the sign of collapse that holds now; empty: none. */
  readonly alert: string;
  /** For people: the spike of the loss that holds now; empty: none. */
  readonly spike: string;
  /** Engines of the last generation's workers, joined by commas if they differ. */
  readonly engine: string;
  /** First assignment and last commit in this coordinator's life, in unix milliseconds. */
  readonly firstStartMs: number | null;
  readonly lastCommitMs: number | null;
  /** Seconds from the decision to durability, of the last checkpoint. */
  readonly checkpointSeconds: number;
}

/** Holders of the state need a moment to find a coordinator that was started again. */
const holdersComeMs = 2_000;

/** A new run waits for all its workers; one that goes on makes do with those who come. */
function firstWaits({ generation, spec }: DurableState, now: number) {
  const leaseMs = spec.fleet.leaseSeconds * 1000;
  if (generation === 0) return { fewerFromMs: Infinity, fewerHoldersFromMs: Infinity };
  return {
    fewerFromMs: now + leaseMs,
    fewerHoldersFromMs: now + Math.min(leaseMs, holdersComeMs),
  };
}

/** Before any worker has come. */
export function initialState(durable: DurableState, now: number): RunState {
  return {
    durable,
    layout: layoutOf(durable.spec),
    workers: [],
    wanted: durable.spec.fleet.workers,
    active: null,
    waiting: {
      reason: durable.generation === 0 ? "start" : "resume",
      sinceMs: now,
      notBeforeMs: now,
      ...firstWaits(durable, now),
    },
    orphans: [],
    paused: false,
    draining: null,
    checkpointRequested: false,
    failedCheckpoints: 0,
    outcome: null,
    barren: 0,
    lastFailure: null,
    counters: {
      steps: 0,
      skippedOverflow: 0,
      skippedLoss: 0,
      skippedGradient: 0,
      rollbacks: 0,
      spikes: 0,
      images: 0,
      exchangeBytes: 0,
      staleMessages: 0,
      badImages: 0,
      failedCheckpoints: 0,
      alerts: 0,
    },
    recent: [],
    lastStep: null,
    watch: initialWatch,
    alert: "",
    spike: "",
    engine: "",
    firstStartMs: null,
    lastCommitMs: null,
    checkpointSeconds: 0,
  };
}

/** Who would be the next generation's members: as many as wanted of those who stay, in order of arrival. */
export function candidates(state: RunState): readonly WorkerState[] {
  return state.workers.filter(({ leaving }) => leaving === null).slice(0, state.wanted);
}

/** Whether the next generation would have other members, or another number of them. */
export function membersChange(state: RunState, { members }: ActiveGeneration): boolean {
  const next = candidates(state);
  return next.length !== members.length || next.some(({ id }) => !members.includes(id));
}

/** Images of one step over all logical ranks. */
export function globalBatch(spec: RunSpec): number {
  return spec.logicalRanks * spec.batchPerRank;
}

/** Whether the run evaluates at all: a folder of images without labelled held-out images cannot. */
function evaluates(spec: RunSpec): boolean {
  const hasLabels = spec.data.kind === "idx" || spec.data.validationPath !== null;
  return spec.evaluation.everySteps > 0 && hasLabels;
}

/** Whether the teacher is evaluated after `step` committed steps: at the start, every so often, and at the end. */
export function evaluationDue(spec: RunSpec, step: number): boolean {
  return evaluates(spec) && (step % spec.evaluation.everySteps === 0 || step === spec.steps);
}

/** Whether a checkpoint is written after `step` committed steps without being asked for. */
export function checkpointDue(spec: RunSpec, step: number): boolean {
  return step % spec.checkpoint.everySteps === 0 || step === spec.steps;
}
