/** `steps.jsonl`: the committed steps of a run. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { StepRecord } from "@paddock/contract";

/**
 * One record per committed step, in order. Empty before the first. A last line that a crash cut off is left out; a step that
 * was repeated after a resume from an older checkpoint appears once, as committed last.
 */
export async function readStepRecords(runDir: string): Promise<StepRecord[]> {
  const text = await readFile(join(runDir, "steps.jsonl"), "utf8").catch(() => "");
  const bySteps = new Map<number, StepRecord>();
  for (const line of text.split("\n")) {
    const record = parseLine(line);
    if (record) bySteps.set(record.step, record);
  }
  return [...bySteps.values()].sort((a, b) => a.step - b.step);
}

function parseLine(line: string): StepRecord | undefined {
  try {
    return line === "" ? undefined : (JSON.parse(line) as StepRecord);
  } catch {
    return undefined;
  }
}
