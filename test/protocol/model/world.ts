/**
 * One state of the whole system: coordinator, workers, what is under way between them, and what is on the disk. Values that are
 * replaced, never changed: worlds share what they have in common, and a part is encoded once (key.ts).
 */
import type { Manifest, Range, RunSpec } from "@paddock/contract";
import type { DurableState, RunState } from "@paddock/coordinator";
import type {
  Assignment,
  CoordinatorMessage,
  Decision,
  Welcome,
  WorkerMessage,
} from "@paddock/proto";
import type { WorkerState } from "@paddock/worker";
import type { Subject } from "../subject.js";

export const faultKinds = [
  "worker-crash",
  "coordinator-crash",
  "cut",
  "pause",
  "failure",
  "checkpoint-failure",
  "leave",
  "scale",
  "drain",
] as const;
export type FaultKind = (typeof faultKinds)[number];

/** Within what is explored. */
export interface Bounds {
  readonly name: string;
  readonly spec: RunSpec;
  readonly workers: number;
  readonly faults: number;
  readonly kinds: readonly FaultKind[];
  /** A worker that crashed comes back as a new process. */
  readonly respawn: boolean;
  readonly maxStates: number;
}

/** The shards of one generation in a worker's memory. */
export interface Memory {
  readonly generation: number;
  readonly workers: number;
  /** Indices of the shards: its own, and the one that it shadows. */
  readonly shards: readonly number[];
  /** Steps whose updates were applied, in order. */
  readonly history: readonly number[];
  /** Step whose reduced gradient waits to be applied. */
  readonly gradient: number | null;
}

/** What a worker's engine is busy with. */
export type Task =
  | { readonly kind: "load"; readonly generation: number; readonly assignment: Assignment }
  | {
      readonly kind: "compute" | "evaluate";
      readonly generation: number;
      readonly step: number;
    }
  | {
      readonly kind: "apply";
      readonly generation: number;
      readonly step: number;
      readonly decision: Decision;
    };

export interface ModelWorker {
  readonly index: number;
  /** Counts the processes at this place. */
  readonly incarnation: number;
  readonly alive: boolean;
  readonly paused: boolean;
  readonly state: WorkerState;
  readonly task: Task | null;
  /** The generation that is being interrupted. */
  readonly interrupting: number | null;
  readonly wantsConnection: boolean;
  readonly session: number | null;
  readonly memories: readonly Memory[];
  /** The newest step whose compute was begun; its parts lie in the exchange even if the worker is gone. */
  readonly begun: { readonly generation: number; readonly step: number } | null;
  /** Checkpoint files that are being written. */
  readonly files: readonly { readonly generation: number; readonly step: number }[];
}

/** How a session ended for a side that has not yet seen it: cut: what is under way may be lost; closed: it arrives first. */
export interface SessionEnd {
  readonly kind: "cut" | "closed";
  readonly code: "worker-lost" | "lease-lost" | "already-exists" | "stale-generation";
}

export interface Session {
  readonly id: number;
  readonly worker: number;
  readonly name: string;
  readonly toCoordinator: readonly WorkerMessage[];
  readonly toWorker: readonly CoordinatorMessage[];
  readonly end: SessionEnd | null;
  /** The side still has it. */
  readonly workerSide: boolean;
  readonly coordinatorSide: boolean;
  /** The coordinator said `joined`, not yet `gone`. */
  readonly joined: boolean;
}

/** What invariants look back to. */
export interface History {
  /** Faults so far, sorted. */
  readonly faults: readonly FaultKind[];
  readonly rollbacks: number;
  /** By step: in which generation it was committed, and by how many. */
  readonly commits: readonly { readonly generation: number; readonly workers: number }[];
}

export interface World {
  readonly now: number;
  /** null: crashed. */
  readonly coordinator: RunState | null;
  readonly ledger: DurableState;
  readonly manifests: readonly Manifest[];
  readonly jobs: { readonly generation: number; readonly segments: readonly Range[] } | null;
  readonly workers: readonly ModelWorker[];
  readonly sessions: readonly Session[];
  readonly faultsLeft: number;
  readonly history: History;
}

/** A world that is being worked out. */
export type Draft = { -readonly [Key in keyof World]: World[Key] };

export interface Context {
  readonly subject: Subject;
  readonly bounds: Bounds;
  readonly welcome: Welcome;
}

/** An invariant does not hold. */
export class Violation extends Error {
  override readonly name = "Violation";
}

export function expectThat(holds: boolean, message: () => string): void {
  if (!holds) throw new Violation(message());
}

export function contextOf(subject: Subject, bounds: Bounds): Context {
  const welcome: Welcome = {
    version: { major: 1, minor: 0 },
    runId: "run",
    specJson: "",
    leaseSeconds: bounds.spec.fleet.leaseSeconds,
    runDir: "/run",
    redisUrl: "redis://host",
  };
  return { subject, bounds, welcome };
}

export function newWorker(
  { subject }: Context,
  index: number,
  incarnation: number,
): ModelWorker {
  const name = `w${index}.${incarnation}`;
  const hello = {
    version: { major: 1, minor: 0 },
    workerName: name,
    host: "host",
    pid: 1,
    engine: "engine",
    device: "cpu",
    threads: 1,
    peerAddress: name,
  };
  return {
    index,
    incarnation,
    alive: true,
    paused: false,
    state: subject.initialWorkerState({ hello, reconnectMs: Number.POSITIVE_INFINITY }),
    task: null,
    interrupting: null,
    wantsConnection: true,
    session: null,
    memories: [],
    begun: null,
    files: [],
  };
}

export function initialWorld(context: Context): World {
  const { subject, bounds } = context;
  const now = 1_000_000;
  const record = { kind: "run", runId: "run", spec: bounds.spec, unixMs: now } as const;
  const ledger = subject.foldRecord(undefined, record);
  return {
    now,
    coordinator: subject.initialState(ledger, now),
    ledger,
    manifests: [],
    jobs: null,
    workers: Array.from({ length: bounds.workers }, (_, index) => newWorker(context, index, 0)),
    sessions: [],
    faultsLeft: bounds.faults,
    history: { faults: [], rollbacks: 0, commits: [] },
  };
}

export function setWorker(draft: Draft, index: number, patch: Partial<ModelWorker>): void {
  draft.workers = draft.workers.map((worker) =>
    worker.index === index ? { ...worker, ...patch } : worker,
  );
}

export function workerAt(world: World, index: number): ModelWorker {
  const worker = world.workers[index];
  if (!worker) throw new RangeError(`expected a worker ${index}`);
  return worker;
}

export function sessionOf(world: World, id: number | null): Session | undefined {
  return world.sessions.find((session) => session.id === id);
}

/** A session that neither side has any more is gone. */
export function setSession(draft: Draft, id: number, patch: Partial<Session>): void {
  draft.sessions = draft.sessions
    .map((session) => (session.id === id ? { ...session, ...patch } : session))
    .filter((session) => session.workerSide || session.coordinatorSide);
}

export function spend(draft: Draft, kind: FaultKind): void {
  const { history } = draft;
  draft.faultsLeft -= 1;
  draft.history = { ...history, faults: [...history.faults, kind].sort() };
}
