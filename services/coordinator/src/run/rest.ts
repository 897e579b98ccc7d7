/** What workers say beside their work: that they rest, and that they want to go. */
import type { Held } from "@paddock/proto";
import { letGo, tellMissed } from "./holdings.js";
import { startIfPossible } from "./membership.js";
import { candidates, type WorkerId } from "./state.js";
import { log, refuseStale, type Turn, updateWorker } from "./turn.js";

/** Nothing of the generation runs there any more. */
export function receiveHeld(turn: Turn, id: WorkerId, { generation, holdings }: Held): void {
  const worker = turn.state.workers.find((known) => known.id === id);
  if (worker?.owesHeld !== generation) {
    refuseStale(turn);
    return;
  }
  updateWorker(turn, id, { owesHeld: null, holdings, lastProgressMs: turn.now });
  tellMissed(turn, id);
  startIfPossible(turn);
}

/** A member goes at the next step boundary, when its shards have moved to the others; who does no work goes when nothing needs it. */
export function receiveLeave(turn: Turn, id: WorkerId, reason: string): void {
  const worker = turn.state.workers.find((known) => known.id === id);
  if (!worker || worker.leaving !== null) return;
  updateWorker(turn, id, { leaving: reason });
  log(turn, "info", "worker leaves", { worker: worker.name, reason });
  const { active } = turn.state;
  const isNeeded = active
    ? active.members.includes(id) || active.commits === 0
    : candidates(turn.state).length > 0;
  if (!isNeeded) letGo(turn, id);
}
