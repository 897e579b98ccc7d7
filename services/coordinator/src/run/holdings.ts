/** What workers hold between two generations, and when it is not needed any more. */
import { missedDecision } from "./cover.js";
import type { WorkerId } from "./state.js";
import { log, send, type Turn, update, updateWorker } from "./turn.js";

/** Tells a worker the decision that it has missed, if it has: it applies it and says once more what it holds. */
export function tellMissed(turn: Turn, id: WorkerId): void {
  const worker = turn.state.workers.find((known) => known.id === id);
  const decision = worker && missedDecision(turn.state, worker);
  if (!worker || !decision) return;
  const { generation, step } = decision;
  log(turn, "info", "decision told again", { worker: worker.name, generation, step });
  updateWorker(turn, id, { owesHeld: generation, holdings: [], lastProgressMs: turn.now });
  send(turn, id, { kind: "decision", decision });
}

/** What it held is elsewhere, or lost anyway. */
export function letGo(turn: Turn, id: WorkerId): void {
  send(turn, id, { kind: "shutdown", shutdown: { finished: false, reason: "left the fleet" } });
  turn.effects.push({ kind: "dismiss", id, reason: "left the fleet" });
  update(turn, { workers: turn.state.workers.filter((worker) => worker.id !== id) });
}

/** Once a generation has committed without them, or when nobody is left to take over. */
export function letLeaversGo(turn: Turn): void {
  const members = turn.state.active?.members ?? [];
  for (const { id, leaving } of turn.state.workers) {
    if (leaving !== null && !members.includes(id)) letGo(turn, id);
  }
}
