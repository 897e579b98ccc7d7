/** The checkpoints that a run can go on from, as its ledger says. */
import type { LedgerRecord } from "@paddock/contract";
import { readLedger } from "./ledger-records.js";

export interface DurableCheckpoint {
  /** Committed steps that it holds. */
  readonly step: number;
  /** SHA-256 of its manifest.json. */
  readonly manifest: string;
}

/** Oldest first; some may have been deleted since. Those that a later generation took back are not among them. */
export async function durableCheckpoints(runDir: string): Promise<DurableCheckpoint[]> {
  let durable: DurableCheckpoint[] = [];
  for (const record of (await readLedger(runDir)) as LedgerRecord[]) {
    if (record.kind === "checkpoint") {
      const { step, manifest } = record;
      durable = [...durable.filter((known) => known.step !== step), { step, manifest }];
    } else if (record.kind === "generation") {
      durable = durable.filter(({ step }) => step <= record.step);
    }
  }
  return durable.sort((a, b) => a.step - b.step);
}
