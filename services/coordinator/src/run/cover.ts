/** Whether the state of the last commit is alive in the workers' memory. Pure looks at the state. */
import { type Decision, DecisionKind, type Holding, type LiveSource } from "@paddock/proto";
import type { RunState, WorkerState } from "./state.js";

/**
 * Who holds the shards at `durable.next`, one worker per shard: the owner, or who keeps a copy. null: some shard is held by nobody who is
 * there, so that only a checkpoint is left.
 */
export function coverOf(state: RunState): LiveSource | null {
  const { committedBy, next } = state.durable;
  const valid = state.workers.flatMap((worker) => {
    const held = worker.holdings.find((h) => isAt(h, committedBy, next));
    return held && isOfRun(held, state) ? [{ worker, held }] : [];
  });
  const workers = valid[0]?.held.workers ?? 0;
  const holders = Array.from({ length: workers }, (_, shard) => {
    const holder =
      valid.find(({ held }) => held.worker === shard) ??
      valid.find(({ held }) => held.shadow === shard);
    const { name = "", peerAddress = "" } = holder?.worker ?? {};
    return holder ? [{ worker: shard, workerName: name, peerAddress }] : [];
  }).flat();
  if (committedBy === null || workers === 0 || holders.length < workers) return null;
  return { generation: committedBy, workers, holders };
}

function isAt({ generation, step }: Holding, committedBy: number | null, next: number): boolean {
  return generation === committedBy && step === next;
}

function isOfRun({ runId }: Holding, { durable }: RunState): boolean {
  return runId === durable.runId;
}

/** The last decision, if this worker has prepared its step and missed it. */
export function missedDecision(state: RunState, worker: WorkerState): Decision | null {
  const { lastDecision, scaler } = state.durable;
  if (!lastDecision) return null;
  const { generation, step, skipped, norms } = lastDecision;
  const missed = worker.holdings.some(
    (held) => held.prepared && isAt(held, generation, step) && isOfRun(held, state),
  );
  if (!missed) return null;
  return {
    generation,
    step,
    kind: skipped ? DecisionKind.DECISION_KIND_SKIP : DecisionKind.DECISION_KIND_COMMIT,
    gradNorm: norms,
    scale: scaler.scale,
    goodSteps: scaler.goodSteps,
    checkpoint: false,
    evaluate: false,
    stop: false,
  };
}
