/** What guards did, one line for people per ledger record that tells of it: `paddock why`, status, log and report use the same words. */
import type { LedgerRecord, Offender } from "./segment.js";

/** So many, the last ones, are shown. */
export const rememberedIncidents = 5;

/** Of a step skipped for a value that is not finite, of a rollback, of what else a guard did; undefined: none of these. Overflows of fp16 are normal. */
export function incidentOf(record: LedgerRecord): string | undefined {
  switch (record.kind) {
    case "commit": {
      const { step, offender } = record;
      if (!offender || offender.reason === "overflow") return undefined;
      return `step ${step} skipped, not finite: ${offenderText(offender)}`;
    }
    case "rollback": {
      const { toStep, skip, reason } = record;
      const without = skip ? `, without the data of steps ${skip.from} to ${skip.to - 1}` : "";
      return `back to step ${toStep}${without}: ${reason}`;
    }
    case "guard":
      return record.message;
    default:
      return undefined;
  }
}

/** "loss koleo of logical rank 3 on worker-1 (samples 5, 17)" */
export function offenderText({ tensor, rank, workerName, samples }: Offender): string {
  if (rank === null) return `${tensor}, over all logical ranks`;
  return `${tensor} of logical rank ${rank} on ${workerName} (samples ${samples.join(", ")})`;
}
