/** Where the checkpoints of the run in a directory lie. */
import { checkpointRoot } from "@paddock/service-kit/checkpoint-store";
import { readLedger } from "./ledger-records.js";
import { readRunSpec } from "./run-directory.js";

/** A folder, or a place in S3-compatible storage. Errors: `not-found`. */
export async function checkpointRootOf(runDir: string): Promise<string> {
  const { storage } = (await readRunSpec(runDir)).checkpoint;
  const run = (await readLedger(runDir)).find((record) => record.kind === "run");
  return checkpointRoot({ storage, runDir, runId: run?.runId ?? "" });
}
