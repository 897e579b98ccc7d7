/** Everything the report shows, read from the files of a run. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { LedgerRecord, RunSpec, StepRecord } from "@paddock/contract";
import type { Summary } from "@paddock/coordinator";
import {
  type AlertRecord,
  alertsOf,
  type EvaluationRecord,
  incidentsOf,
  readLedger,
} from "../run/ledger-records.js";
import { readRunSpec } from "../run/run-directory.js";
import { readStepRecords } from "../run/step-records.js";
import { readVisuals, type Visual } from "./images.js";

export interface ReportData {
  readonly runDir: string;
  readonly spec: RunSpec;
  readonly steps: readonly StepRecord[];
  /** By step, the last one of a step that was evaluated twice. */
  readonly evaluations: readonly EvaluationRecord[];
  /** Memberships that the run had, in order. */
  readonly generations: readonly (LedgerRecord & { kind: "generation" })[];
  /** Signs of collapse, in order. */
  readonly alerts: readonly AlertRecord[];
  /** What guards did, the last times. */
  readonly incidents: readonly string[];
  /** Absent until the run has finished. */
  readonly summary: Summary | undefined;
  readonly visuals: readonly Visual[];
}

/** Errors: `not-found` when it is no run directory. What a run has not written yet is empty. */
export async function readRun(runDir: string): Promise<ReportData> {
  const [spec, steps, ledger, summary, visuals] = await Promise.all([
    readRunSpec(runDir),
    readStepRecords(runDir),
    readLedger(runDir),
    readFile(join(runDir, "summary.json"), "utf8").then(
      (text) => JSON.parse(text) as Summary,
      () => undefined,
    ),
    readVisuals(runDir),
  ]);
  const evaluations = new Map<number, EvaluationRecord>();
  for (const record of ledger) {
    if (record.kind === "evaluation" && "bank" in record) evaluations.set(record.step, record);
  }
  return {
    runDir,
    spec,
    steps,
    evaluations: [...evaluations.values()].sort((a, b) => a.step - b.step),
    alerts: alertsOf(ledger),
    incidents: incidentsOf(ledger),
    generations: ledger.filter((record) => record.kind === "generation"),
    summary,
    visuals,
  };
}
