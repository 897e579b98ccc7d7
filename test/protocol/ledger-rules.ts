/** What must hold between the ledger and whatever is appended to it or told because of it: of explored worlds, and of traces of real runs. */
import type { DurableState, RunRecord, RunState } from "@paddock/coordinator/protocol";
import { type CoordinatorMessage, DecisionKind } from "@paddock/proto";
import { demand } from "./violation.js";

/** @param durable the fold of everything before `record` */
export function demandAppendable(durable: DurableState, record: RunRecord): void {
  const { next, generation } = durable;
  if (record.kind === "commit") {
    demand(record.step === next, `commit of step ${record.step} follows ${next}`);
    demand(record.generation === generation, "only the newest generation commits");
  }
  if (record.kind === "generation") {
    demand(record.generation === generation + 1, "generations are counted without a gap");
    demand(record.step <= next, "no generation starts ahead of the last commit");
  }
  if (record.kind === "checkpoint") {
    demand(record.step <= next, "no checkpoint holds more than was committed");
  }
}

/** A worker acts on what it is told at once: the ledger has to know it before. */
export function demandSendable(durable: DurableState, message: CoordinatorMessage): void {
  if (message.kind === "assignment") {
    const isRecorded = message.assignment.generation === durable.generation;
    demand(isRecorded, "a generation is in the ledger before anybody is assigned to it");
  }
  if (message.kind !== "decision") return;
  const { kind, generation, step } = message.decision;
  if (kind === DecisionKind.DECISION_KIND_ABORT) return;
  const isRecorded = durable.next === step + 1 && durable.committedBy === generation;
  demand(isRecorded, `the decision about step ${step} is in the ledger before it is sent`);
}

/** @param steps of the checkpoints that stay on disk */
export function demandKept({ checkpoints }: DurableState, steps: readonly number[]): void {
  const newest = checkpoints.at(-1);
  if (newest) demand(steps.includes(newest.step), "the newest durable checkpoint stays on disk");
}

/** The holders of a live generation are named after what they have said, not after what they may have. */
export function demandHolders(workers: RunState["workers"], message: CoordinatorMessage): void {
  const { live, startStep } = message.kind === "assignment" ? message.assignment : {};
  for (const { worker: shard, workerName } of live?.holders ?? []) {
    const holdings = workers.find(({ name }) => name === workerName)?.holdings ?? [];
    const isHeld = holdings.some(
      ({ generation, step, worker, shadow }) =>
        generation === live?.generation &&
        step === startStep &&
        (worker === shard || shadow === shard),
    );
    demand(
      isHeld,
      `a holder has said that it holds what it is named for: ${workerName}, shard ${shard} of generation ${live?.generation}`,
    );
  }
}
