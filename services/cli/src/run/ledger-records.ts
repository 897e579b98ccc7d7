/** What a run's ledger says, for those who only look: the coordinator alone writes and checks it. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { incidentOf, type LedgerRecord, rememberedIncidents } from "@paddock/contract";

/** An evaluation as it is recorded. */
export interface EvaluationRecord {
  readonly kind: "evaluation";
  readonly step: number;
  /** Fraction in [0, 1]. */
  readonly knn: number;
  /** Images that were used: accuracies compare only when these are the same. */
  readonly bank: number;
  readonly queries: number;
}

export type AlertRecord = LedgerRecord & { readonly kind: "alert" };

/** The records of a run directory, oldest first, without a last line that a crash cut off; none without a ledger. */
export async function readLedger(runDir: string): Promise<(LedgerRecord | EvaluationRecord)[]> {
  const text = await readFile(join(runDir, "ledger.jsonl"), "utf8").catch(() => "");
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as LedgerRecord | EvaluationRecord);
}

/** Signs of collapse that the run showed, without those of steps that were computed again. */
export function alertsOf(records: readonly (LedgerRecord | EvaluationRecord)[]): AlertRecord[] {
  let alerts: AlertRecord[] = [];
  for (const record of records) {
    if (record.kind === "alert") alerts.push(record);
    if (record.kind === "generation") alerts = alerts.filter(({ step }) => step < record.step);
  }
  return alerts;
}

/** What guards did, the last times, oldest first: as the coordinator shows it while it runs. */
export function incidentsOf(records: readonly (LedgerRecord | EvaluationRecord)[]): string[] {
  return records
    .flatMap((record) => ("bank" in record ? [] : (incidentOf(record) ?? [])))
    .slice(-rememberedIncidents);
}
