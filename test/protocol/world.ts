/**
 * The protocol's world as one plain value: one coordinator, some workers, what is on its way between them, what is on disk. The minds
 * are the real ones (`decide`, `decideWorker`); everything else is modelled as small as it can be.
 *
 * A shard's content is the number of updates that were applied to it, in order: a lost, doubled or foreign one shows at once.
 */
import { parseRunSpec, type RunSpec } from "@paddock/contract";
import { fold, initialState, type RunRecord, type RunState } from "@paddock/coordinator/protocol";
import type { Assignment, CoordinatorMessage, Decision, WorkerMessage } from "@paddock/proto";
import { initialWorkerState, type WorkerState } from "@paddock/worker/protocol";

export interface Bounds {
  readonly workers: number;
  readonly steps: number;
  readonly faults: number;
  readonly redundancy: "none" | "shadow";
}

/** What a worker does beside listening; each ends at any time. */
export type Activity =
  | { readonly kind: "load"; readonly assignment: Assignment }
  | { readonly kind: "compute"; readonly generation: number; readonly step: number }
  | { readonly kind: "apply"; readonly decision: Decision }
  | { readonly kind: "write"; readonly generation: number; readonly step: number }
  | { readonly kind: "interrupt"; readonly generation: number };

/** The last message of a stream that the coordinator ended. */
export const streamEnd = { kind: "end" } as const;

/** Updates in the own shards of a generation, and in those kept for another worker. */
export interface Content {
  readonly generation: number;
  readonly steps: number;
}

/** A worker process and its stream. */
export interface Node {
  /** null: the process is dead or has ended. */
  readonly mind: WorkerState | null;
  /** It has ended by itself, and no other takes its place. */
  readonly isGone: boolean;
  /** Its session at the coordinator; 0: none. */
  readonly session: number;
  /** Whether its own end of a stream is open. */
  readonly isOpen: boolean;
  readonly wantsStream: boolean;
  readonly toCoordinator: readonly WorkerMessage[];
  readonly toWorker: readonly (CoordinatorMessage | typeof streamEnd)[];
  /** The stream broke, and this side has not noticed. */
  readonly lostHere: boolean;
  readonly lostThere: boolean;
  readonly activities: readonly Activity[];
  readonly contents: readonly Content[];
}

/** A checkpoint's files: who of how many wrote which state. */
export interface SavedFile {
  readonly generation: number;
  readonly step: number;
  readonly worker: number;
}

export interface World {
  readonly spec: RunSpec;
  /** null: the process is dead. */
  readonly coordinator: RunState | null;
  /** The ledger's fold. */
  readonly durable: RunState["durable"];
  readonly nodes: readonly Node[];
  readonly lastSession: number;
  readonly manifests: readonly { readonly generation: number; readonly step: number }[];
  readonly files: readonly SavedFile[];
  readonly faults: number;
  /** "generation step worker": whose gradients of a step are on their way to all others. */
  readonly computed: readonly string[];
  readonly rollbacks: number;
  /** Deaths and timeouts of workers so far: what may cost committed steps. A broken stream or a dead coordinator may not. */
  readonly excuses: number;
  readonly nowMs: number;
}

function specOf({ steps, workers, redundancy }: Bounds): RunSpec {
  return parseRunSpec({
    steps,
    logicalRanks: workers,
    batchPerRank: 2,
    model: { width: 8, depth: 1, heads: 1, patchSize: 4, channels: 1 },
    heads: { dino: { prototypes: 8, bottleneck: 4, hidden: 4, layers: 1 } },
    data: { kind: "idx", path: "/data" },
    crops: {
      global: { size: 8, scale: [0.3, 1] },
      local: { size: 4, scale: [0.1, 0.3] },
      mean: [0.5],
      std: [0.5],
    },
    exchange: { dtype: "fp32" },
    fleet: { workers, segmentSteps: 100, leaseSeconds: 30, redundancy, balance: "even" },
    checkpoint: { everySteps: 2, keep: 1 },
    evaluation: { everySteps: 0 },
    monitor: { everySteps: 0 },
  });
}

export const idleNode: Node = {
  mind: null,
  isGone: false,
  session: 0,
  isOpen: false,
  wantsStream: false,
  toCoordinator: [],
  toWorker: [],
  lostHere: false,
  lostThere: false,
  activities: [],
  contents: [],
};

export function initialWorld(bounds: Bounds): World {
  const spec = specOf(bounds);
  const start: RunRecord = { kind: "run", runId: "r", spec, unixMs: 0 };
  const durable = fold([start]) as RunState["durable"];
  return {
    spec,
    coordinator: initialState(durable, 0),
    durable,
    nodes: Array.from({ length: bounds.workers }, (_, i) => startedNode(i)),
    lastSession: 0,
    manifests: [],
    files: [],
    faults: bounds.faults,
    computed: [],
    rollbacks: 0,
    excuses: 0,
    nowMs: 0,
  };
}

/** A fresh process: it wants a stream. */
export function startedNode(index: number): Node {
  const { state } = initialWorkerState({
    version: { major: 2, minor: 0 },
    workerName: `w${index}`,
    host: "h",
    pid: 1,
    engine: "e",
    device: "d",
    threads: 1,
    peerAddress: `${index}`,
  });
  return { ...idleNode, mind: state, wantsStream: true };
}
