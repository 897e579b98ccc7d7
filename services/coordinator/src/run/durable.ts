/** What of a run survives everything: the fold of its ledger. */
import {
  type DataWindow,
  type GradNorms,
  incidentOf,
  invariant,
  type LedgerRecord,
  leaveOut,
  type Offender,
  parseRunSpec,
  type Rollback,
  type RunSpec,
  rememberedIncidents,
  type ScalerState,
} from "@paddock/contract";
import { type GuardHistory, noHistory, rewindTo, trimmed, withCommit } from "./guards/history.js";
import { keptWithGuards } from "./guards/retention.js";

type Of<Kind extends LedgerRecord["kind"]> = Extract<LedgerRecord, { kind: Kind }>;

/** The contract's records; a checkpoint also says with which scaler to go on, an evaluation how many images it used. */
export type RunRecord =
  | Of<"run">
  | Of<"generation">
  | Of<"commit">
  | (Of<"checkpoint"> & { readonly scaler: ScalerState })
  | Of<"alert">
  | Of<"guard">
  | Of<"rollback">
  | (Of<"evaluation"> & { readonly bank: number; readonly queries: number })
  | Of<"finished">;

interface DurableCheckpoint {
  /** Committed steps that it holds. */
  readonly step: number;
  readonly generation: number;
  /** sha256 of its manifest.json. */
  readonly manifest: string;
  readonly scaler: ScalerState;
}

export interface RunStart {
  readonly step: number;
  readonly scaler: ScalerState;
  /** Data that the run it goes on from has left out. */
  readonly leftOut?: readonly DataWindow[];
}

export interface LastDecision {
  readonly generation: number;
  readonly step: number;
  readonly skipped: boolean;
  readonly norms: GradNorms;
}

interface Evaluation {
  /** Committed steps of the teacher that was evaluated. */
  readonly step: number;
  readonly knn: number;
  readonly bank: number;
  readonly queries: number;
}

export interface DurableState {
  readonly runId: string;
  readonly spec: RunSpec;
  /** When the run was first recorded, in unix milliseconds. */
  readonly createdUnixMs: number;
  /** Where it began: step 0, or that of the checkpoint that it goes on from. */
  readonly start: RunStart;
  /** The last generation that was started; 0: none. */
  readonly generation: number;
  /** Workers of that generation. */
  readonly workers: number;
  /** Committed steps: the next step to execute. */
  readonly next: number;
  /** Loss scaler of step `next`. */
  readonly scaler: ScalerState;
  /** Steps in a row, up to `next`, whose update was skipped. */
  readonly skipsInRow: number;
  /** What guards remember of steps before `next`. */
  readonly history: GuardHistory;
  /** Data that no step from here on uses. */
  readonly leftOut: readonly DataWindow[];
  /** Times that guards made the run go back. */
  readonly rollbacks: readonly Rollback[];
  /** The last step whose update was skipped for a value that was not finite, and where that was seen first; also if the run has gone back since. */
  readonly lastBad: { readonly step: number; readonly offender: Offender } | null;
  /** What guards did, the last times, oldest first, for people. */
  readonly incidents: readonly string[];
  /** The generation whose decision made `next`: what its workers hold is the state at `next`. null: none, or taken back. */
  readonly committedBy: number | null;
  /** The decision that made `next`, to be told again to those who missed it; null: there is none. */
  readonly lastDecision: LastDecision | null;
  /** Durable checkpoints at or before `next`, oldest first. Old ones may be gone from the disk. */
  readonly checkpoints: readonly DurableCheckpoint[];
  /** Steps of those that are not: ascending. */
  readonly kept: readonly number[];
  /** Evaluations at or before `next`, in order of step. */
  readonly evaluations: readonly Evaluation[];
  readonly finished: boolean;
}

/** Whether gradients pass through fp16, in products or between workers, and must be scaled on the way. */
export function needsScaling({ engine, exchange }: RunSpec): boolean {
  return exchange.dtype === "fp16" || engine.precision === "fp16";
}

/** The scaler before the first step: without fp16 none is needed. */
function initialScaler(spec: RunSpec): ScalerState {
  return { scale: needsScaling(spec) ? spec.exchange.initialScale : 1, goodSteps: 0 };
}

/** The step from which a new generation starts: that of the newest durable checkpoint, or where the run began. */
export function restartStep(state: DurableState): number {
  return state.checkpoints.at(-1)?.step ?? state.start.step;
}

/** The state that a ledger's records give; undefined for an empty ledger. */
export function fold(records: Iterable<RunRecord>): DurableState | undefined {
  let state: DurableState | undefined;
  for (const record of records) state = foldRecord(state, record);
  return state;
}

/** The state after one more record. The first one must be `run`; a later `run` changes the spec of a resumed run. */
export function foldRecord(state: DurableState | undefined, record: RunRecord): DurableState {
  if (record.kind === "run") return foldRun(state, record);
  invariant(state, `a ledger starts with a run, not with ${record.kind}`);
  const after = foldLater(state, record);
  const incident = incidentOf(record);
  if (incident === undefined) return after;
  return { ...after, incidents: [...state.incidents, incident].slice(-rememberedIncidents) };
}

function foldLater(state: DurableState, record: Exclude<RunRecord, Of<"run">>): DurableState {
  switch (record.kind) {
    case "generation":
      return foldGeneration(state, record);
    case "commit":
      return {
        ...state,
        next: record.step + 1,
        scaler: record.scaler,
        skipsInRow: record.skipped ? state.skipsInRow + 1 : 0,
        history: withCommit(state.history, record),
        lastBad: badOf(record) ?? state.lastBad,
        committedBy: record.generation,
        lastDecision: decisionOf(record),
      };
    case "checkpoint": {
      const { step, generation, manifest, scaler } = record;
      // An older one can become durable after a newer one.
      const others = state.checkpoints.filter((known) => known.step !== step);
      const checkpoints = [...others, { step, generation, manifest, scaler }];
      checkpoints.sort((a, b) => a.step - b.step);
      const kept = [...state.kept.filter((known) => known !== step), step].sort((a, b) => a - b);
      return withoutOld({ ...state, checkpoints, kept });
    }
    case "evaluation": {
      const { step, knn, bank, queries } = record;
      const others = state.evaluations.filter((known) => known.step < step);
      return { ...state, evaluations: [...others, { step, knn, bank, queries }] };
    }
    case "alert":
    case "guard":
      return state; // what it says is found again after a resume
    case "rollback":
      return foldRollback(state, record);
    case "finished":
      return { ...state, finished: true };
  }
}

function foldRun(state: DurableState | undefined, record: Of<"run">): DurableState {
  const spec = parseRunSpec(record.spec);
  if (state) return { ...state, spec };
  const start = record.start ?? { step: 0, scaler: initialScaler(spec) };
  return {
    runId: record.runId,
    spec,
    createdUnixMs: record.unixMs,
    start,
    generation: 0,
    workers: 0,
    next: start.step,
    scaler: start.scaler,
    skipsInRow: 0,
    history: noHistory,
    leftOut: start.leftOut ?? [],
    rollbacks: [],
    lastBad: null,
    incidents: [],
    committedBy: null,
    lastDecision: null,
    checkpoints: [],
    kept: [],
    evaluations: [],
    finished: false,
  };
}

function badOf({ step, offender }: Of<"commit">): DurableState["lastBad"] {
  return offender && offender.reason !== "overflow" ? { step, offender } : null;
}

function decisionOf({ generation, step, skipped, norms }: Of<"commit">): LastDecision | null {
  return norms ? { generation, step, skipped, norms } : null;
}

/** A generation starts at `record.step`. Behind `next`: later commits and evaluations of older ones are void. */
function foldGeneration(state: DurableState, record: Of<"generation">): DurableState {
  const { generation, workers } = record;
  if (record.step === state.next) return withoutOld({ ...state, generation, workers });
  const checkpoint = state.checkpoints.findLast((known) => known.step === record.step);
  return withoutOld({
    ...state,
    generation,
    workers,
    next: record.step,
    scaler: checkpoint?.scaler ?? state.start.scaler,
    skipsInRow: 0,
    history: rewindTo(state.history, record.step),
    committedBy: null,
    lastDecision: null,
    checkpoints: state.checkpoints.filter((known) => known.step <= record.step),
    kept: state.kept.filter((step) => step <= record.step),
    evaluations: state.evaluations.filter((known) => known.step <= record.step),
  });
}

/** Without the checkpoints that nobody needs any more, and the history that only they would need. What is on disk follows. */
function withoutOld(state: DurableState): DurableState {
  const kept = keptWithGuards(state);
  const [floor] = kept;
  if (floor === undefined) return state;
  return { ...state, kept, history: trimmed(state.history, state.spec, floor) };
}

/** Back to `toStep`: commits, checkpoints and evaluations after it are void. */
function foldRollback(state: DurableState, record: Of<"rollback">): DurableState {
  const { kind: _, ...rollback } = record;
  const { toStep, skip } = rollback;
  return {
    ...state,
    ...foldGeneration(state, { ...restartOf(state), step: toStep }),
    leftOut: skip ? leaveOut(state.leftOut, skip.from, skip.to) : state.leftOut,
    rollbacks: [...state.rollbacks, rollback],
  };
}

/** A generation record that changes nothing but where the run stands. */
function restartOf({ generation, workers }: DurableState): Omit<Of<"generation">, "step"> {
  return { kind: "generation", generation, workers, reason: "", unixMs: 0 };
}
