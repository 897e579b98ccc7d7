/** What must hold of every record, message and event. Violations are thrown; `invariants` names them for people. */
import type { Effect, RunEvent, RunRecord, RunState } from "@paddock/coordinator";
import { type Assignment, type CoordinatorMessage, type Decision, DecisionKind } from "@paddock/proto";
import { holdsPrefix } from "./live-load.js";
import { type Context, type Draft, expectThat, type World } from "./world.js";

export const invariants = [
  "at most one commit per step; the next one follows the last",
  "the committed prefix shrinks by a recorded rollback only",
  "a rollback only when some shard of the committed state is in no live worker's memory",
  "without a worker's crash or an expired lease no commit is ever lost",
  "with shadow, one crash of a worker loses no commit",
  "without faults: no rollback, one generation per size of the fleet",
  "who prepares step s, or writes a checkpoint of it, holds exactly the updates 0..s-1",
  "an update is applied once, with its own gradient, and never in part",
  "a live start names every shard once and reads holdings at the right step only",
  "a decision is in the ledger before it is sent, and says the same when it is sent again",
  "what is of an older generation changes nothing",
  "a checkpoint has the files of all workers",
  "from every state the run ends, faults or none before it; no worker dies, and none is left over",
] as const;

export function checkRecord({ bounds }: Context, draft: Draft, record: RunRecord): void {
  const { ledger } = draft;
  switch (record.kind) {
    case "commit":
      expectThat(
        record.step === ledger.next && record.generation === ledger.generation,
        () => `commit of step ${record.step} in ${record.generation} after ${ledger.next} steps`,
      );
      commit(draft, record.generation);
      break;
    case "generation":
      expectThat(
        record.generation === ledger.generation + 1 && record.step <= ledger.next,
        () => `generation ${record.generation} from step ${record.step} after ${ledger.next}`,
      );
      if (record.step < ledger.next) rollBack(draft, record.step);
      break;
    case "checkpoint":
      expectThat(
        record.step > 0 && record.step <= ledger.next,
        () => `checkpoint of step ${record.step} after ${ledger.next} steps`,
      );
      break;
    case "finished":
      expectThat(
        ledger.next === bounds.spec.steps,
        () => `finished after ${ledger.next} of ${bounds.spec.steps} steps`,
      );
      break;
  }
}

function commit(draft: Draft, generation: number): void {
  const { history } = draft;
  const workers = draft.ledger.workers;
  draft.history = { ...history, commits: [...history.commits, { generation, workers }] };
}

function rollBack(draft: Draft, step: number): void {
  const { history, ledger } = draft;
  const what = `rollback from ${ledger.next} to ${step}`;
  const isLossy = history.faults.some((kind) => kind === "worker-crash" || kind === "pause");
  expectThat(isLossy, () => `${what} without a crash of a worker or an expired lease`);
  const isOneCrash = history.faults.length === 1 && history.faults[0] === "worker-crash";
  const isShadowed = ledger.spec.fleet.redundancy === "shadow";
  expectThat(!(isShadowed && isOneCrash), () => `${what} by one crash, with shadow`);
  expectThat(!isCovered(draft), () => `${what} although living workers hold all of it`);
  const commits = history.commits.slice(0, step);
  draft.history = { ...history, commits, rollbacks: history.rollbacks + 1 };
}

/** Whether every shard of the committed state is in the memory of a worker that lives, was never slow, and may be asked. */
function isCovered({ ledger, history, workers }: World): boolean {
  const last = history.commits.at(-1);
  if (!last || history.faults.includes("pause")) return false;
  return Array.from({ length: last.workers }, (_, shard) => shard).every((shard) =>
    workers.some(({ alive, memories }) =>
      memories.some((memory) => {
        const isOurs = memory.generation === last.generation && memory.shards.includes(shard);
        const isPrepared = holdsPrefix(memory, ledger.next - 1) && memory.gradient === ledger.next - 1;
        return alive && isOurs && (holdsPrefix(memory, ledger.next) || isPrepared);
      }),
    ),
  );
}

export function checkMessage(context: Context, draft: Draft, message: CoordinatorMessage): void {
  if (message.kind === "assignment") checkAssignment(draft, message.assignment);
  else if (message.kind === "decision") checkDecision(context, draft, message.decision);
}

function checkAssignment({ ledger }: Draft, assignment: Assignment): void {
  const { generation, startStep, live, loadCheckpoint, workers, worker } = assignment;
  const what = `assignment of generation ${generation} at step ${startStep}`;
  expectThat(
    generation === ledger.generation && startStep === ledger.next && worker < workers,
    () => `${what}, with generation ${ledger.generation} and ${ledger.next} steps in the ledger`,
  );
  if (live) {
    const shards = live.holders.map((holder) => holder.worker).sort();
    const isWhole = shards.length === live.workers && shards.every((shard, i) => shard === i);
    expectThat(isWhole && !loadCheckpoint, () => `${what} from shards ${shards} of ${live.workers}`);
    return;
  }
  const isDurable = ledger.checkpoints.some(({ step }) => step === startStep);
  expectThat(
    loadCheckpoint ? isDurable : startStep === ledger.start.step,
    () => `${what} from nowhere`,
  );
}

/** All prepared messages of the model are alike, hence all norms. */
const norms = new WeakMap<object, string>();

function checkDecision({ bounds }: Context, { ledger, history }: Draft, decision: Decision): void {
  if (decision.kind === DecisionKind.DECISION_KIND_ABORT) return;
  const { generation, step, gradNorm } = decision;
  const recorded = history.commits[step];
  expectThat(
    step < ledger.next && recorded?.generation === generation,
    () => `decision about step ${step} of generation ${generation}, not in the ledger`,
  );
  const said = JSON.stringify(gradNorm);
  const before = norms.get(bounds.spec) ?? said;
  norms.set(bounds.spec, before);
  expectThat(said === before, () => `decision about step ${step} with other norms: ${said}`);
}

/** A message of another generation than the one in force appends nothing and tells nobody anything. */
export function checkStale(
  before: RunState,
  event: RunEvent,
  after: RunState,
  effects: readonly Effect[],
): void {
  const generation = generationOf(event);
  if (generation === undefined || generation === before.active?.generation) return;
  const isSilent = effects.every(({ kind }) => kind === "log");
  expectThat(
    isSilent && after.durable === before.durable && after.active === before.active,
    () => `stale: ${event.kind} of generation ${generation} had an effect`,
  );
}

function generationOf(event: RunEvent): number | undefined {
  switch (event.kind) {
    case "prepared":
      return event.prepared.generation;
    case "checkpoint-written":
      return event.written.generation;
    case "evaluation-done":
      return event.evaluation.generation;
    case "failed":
      return event.failure.generation;
    default:
      return undefined;
  }
}
