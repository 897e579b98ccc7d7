/** A run as the API shows it. Pure. */
import { ranksOfCut, sizeOf } from "@paddock/contract";
import { type Run, RunPhase, type WorkerStatus } from "@paddock/proto";
import { paceOfWorker } from "../run/balance.js";
import { owes } from "../run/leases.js";
import type { ActiveGeneration, RunState, WorkerState } from "../run/state.js";
import { allIsWell, diagnose, type Outside } from "./diagnosis.js";

/** @param now unix milliseconds */
export function viewOf(state: RunState, now: number, outside: Outside = allIsWell): Run {
  const { durable, active, lastStep } = state;
  const { spec } = durable;
  const rate = stepsPerSecond(state);
  return {
    runId: durable.runId,
    name: spec.name,
    phase: phaseOf(state),
    generation: durable.generation,
    step: durable.next,
    steps: spec.steps,
    workers: state.workers.map((worker) => statusOf(worker, active)),
    lastStepJson: lastStep ? JSON.stringify(lastStep) : "",
    imagesPerSecond: imagesPerSecond(state),
    etaSeconds: rate > 0 ? (spec.steps - durable.next) / rate : -1,
    knnAccuracy: durable.evaluations.at(-1)?.knn ?? -1,
    checkpointStep: durable.checkpoints.at(-1)?.step ?? -1,
    waitingFor: waitingFor(state, now),
    alert: [state.alert, state.spike, outside.diskFull?.reason ?? ""]
      .filter((text) => text !== "")
      .join("; "),
    incidents: [...durable.incidents],
    diagnosis: diagnose(state, now, outside),
    reason: state.outcome && "reason" in state.outcome ? state.outcome.reason : "",
  };
}

/** Images per second over the last 20 steps of this generation; 0 before the second one. */
export function imagesPerSecond({ recent }: RunState): number {
  const seconds = secondsOf(recent);
  if (seconds <= 0) return 0;
  return recent.slice(1).reduce((sum, { images }) => sum + images, 0) / seconds;
}

function stepsPerSecond({ recent }: RunState): number {
  const seconds = secondsOf(recent);
  return seconds > 0 ? (recent.length - 1) / seconds : 0;
}

function secondsOf(recent: RunState["recent"]): number {
  const [first, last] = [recent[0], recent.at(-1)];
  return first && last ? (last.unixMs - first.unixMs) / 1000 : 0;
}

function phaseOf(state: RunState): RunPhase {
  switch (state.outcome?.kind) {
    case "finished":
      return RunPhase.RUN_PHASE_FINISHED;
    case "interrupted":
      return RunPhase.RUN_PHASE_INTERRUPTED;
    case "failed":
      return RunPhase.RUN_PHASE_FAILED;
    case undefined:
      break;
  }
  if (state.draining !== null) return RunPhase.RUN_PHASE_DRAINING;
  if (state.paused) return RunPhase.RUN_PHASE_PAUSED;
  return state.active ? RunPhase.RUN_PHASE_RUNNING : RunPhase.RUN_PHASE_WAITING;
}

function statusOf(worker: WorkerState, active: ActiveGeneration | null): WorkerStatus {
  const index = active?.members.indexOf(worker.id) ?? -1;
  return {
    workerName: worker.name,
    worker: index,
    step: worker.step,
    phase: worker.phase,
    lastProgressUnixMs: Math.round(worker.lastProgressMs),
    engine: worker.engine,
    host: worker.host,
    pid: worker.pid,
    ranks: active && index >= 0 ? sizeOf(ranksOfCut(active.cuts, index)) : 0,
    secondsPerRank: paceOfWorker(worker) ?? 0,
  };
}

/** Every wait with its owner, its reason and its end. Empty when the run has ended. */
function waitingFor(state: RunState, now: number): string {
  const { active, outcome, paused, wanted, workers, waiting } = state;
  if (outcome) return "";
  if (!active) {
    const since = seconds(now - waiting.sinceMs);
    const missing = wanted - workers.length;
    if (missing <= 0) return `a pause after a failure, ${seconds(waiting.notBeforeMs - now)} left`;
    const fewer = Number.isFinite(waiting.fewerFromMs)
      ? `; goes on with fewer in ${seconds(waiting.fewerFromMs - now)}`
      : "";
    return `${missing} more of ${wanted} workers, for ${since} (${waiting.reason})${fewer}`;
  }
  const owing = workers.filter(({ id }) => {
    const index = active.members.indexOf(id);
    return index >= 0 && owes(active, index);
  });
  if (owing.length > 0) return owing.map((worker) => describe(worker, state, now)).join("; ");
  if (paused) return "resume: the run is paused";
  if (active.regroupAt !== null) return `the checkpoint of step ${active.regroupAt}, to regroup`;
  return active.stopping ? "the last checkpoint" : "";
}

function describe(worker: WorkerState, { durable }: RunState, now: number): string {
  const sinceMs = now - worker.lastProgressMs;
  const left = seconds(durable.spec.fleet.leaseSeconds * 1000 - sinceMs);
  return `worker ${worker.name} (step ${worker.step}, ${worker.phase}), last progress ${seconds(sinceMs)} ago, lease ends in ${left}`;
}

function seconds(ms: number): string {
  return `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
}
