/** Which samples the committed steps were computed from: the workers' notes (PADDOCK_AUDIT) joined with the ledger's commits. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { LedgerRecord } from "@paddock/contract";
import { committedSteps } from "./ledger.js";

interface Note {
  readonly generation: number;
  readonly step: number;
  readonly rank: number;
  readonly samples: readonly number[];
}

/** The multiset of (step, sample id), sorted: "step:id" once for every time that a rank of the committing generation used it. */
export function consumedSamples(folder: string, records: readonly LedgerRecord[]): string[] {
  const committed = committedSteps(records);
  return readNotes(folder)
    .filter(({ step, generation }) => committed.get(step) === generation)
    .flatMap(({ step, samples }) => samples.map((id) => `${step}:${id}`))
    .sort();
}

function readNotes(folder: string): Note[] {
  return readdirSync(folder).flatMap((name) =>
    readFileSync(join(folder, name), "utf8")
      .split("\n")
      // A process that was killed may have left half a line; its step cannot have been committed.
      .filter((line) => line.endsWith("}"))
      .map((line) => JSON.parse(line) as Note),
  );
}
