/** Who owes what, and whose time for it is over. Pure looks at the state. */
import type { ActiveGeneration, RunState, WorkerId, WorkerState } from "./state.js";

/** Whether the member must show progress: it is not waiting for a decision. */
export function owes(active: ActiveGeneration, index: number): boolean {
  if (!active.stopping) return active.prepared[index] === null;
  return (
    active.pendingCheckpoints.some(({ files }) => files[index] === null) ||
    (index === 0 && active.pendingEvaluations.length > 0)
  );
}

/**
 * Members whose lease is over, and whose own fault that is: who waits for another that owes something is not looked at before that one.
 * If they all wait for each other, something got lost between them, and the one that stopped first goes.
 */
export function expired({ active, workers, durable }: RunState, now: number): WorkerId[] {
  if (!active) return [];
  const indexOf = ({ id }: WorkerState): number => active.members.indexOf(id);
  const isOwing = (index: number): boolean => index >= 0 && owes(active, index);
  const leaseMs = durable.spec.fleet.leaseSeconds * 1000;
  const late = workers.filter(
    (worker) => isOwing(indexOf(worker)) && now - worker.lastProgressMs > leaseMs,
  );
  const culprits = late.filter(({ waitingOn }) => !waitingOn.some(isOwing));
  if (culprits.length > 0) return culprits.map(({ id }) => id);
  const someMove = workers.some((worker) => isOwing(indexOf(worker)) && !late.includes(worker));
  const oldest = Math.min(...late.map(({ lastProgressMs }) => lastProgressMs));
  return someMove
    ? []
    : late.filter(({ lastProgressMs }) => lastProgressMs === oldest).map(({ id }) => id);
}

/** Who should have come to rest by now. */
export function restless({ workers, durable }: RunState, now: number): WorkerId[] {
  const leaseMs = durable.spec.fleet.leaseSeconds * 1000;
  return workers
    .filter(({ owesHeld, lastProgressMs }) => owesHeld !== null && now - lastProgressMs > leaseMs)
    .map(({ id }) => id);
}
