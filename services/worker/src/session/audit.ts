/**
 * A trace for audits of the data: with PADDOCK_AUDIT=<folder> every worker notes which samples each of its logical ranks has computed
 * a step with. Lines of a step are in the file before the step can be committed.
 */
import { appendFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { env, pid } from "node:process";
import type { RankBatch } from "@paddock/data";

/** One line of `<folder>/<pid>.jsonl`. */
export interface AuditLine {
  readonly generation: number;
  readonly step: number;
  readonly rank: number;
  /** Replacements of images that could not be used included. */
  readonly samples: readonly number[];
}

/** Appends a line per batch; nothing without PADDOCK_AUDIT. Call it before the batches are released. */
export function audit(
  generation: number,
  step: number,
  batches: readonly Pick<RankBatch, "rank" | "sampleIds">[],
): void {
  if (!folder) return;
  const lines = batches.map(({ rank, sampleIds: samples }) => {
    const line: AuditLine = { generation, step, rank, samples };
    return `${JSON.stringify(line)}\n`;
  });
  mkdirSync(folder, { recursive: true });
  // Not synced: what a killed process has written stays in the system's cache.
  appendFileSync(join(folder, `${pid}.jsonl`), lines.join(""));
}

// biome-ignore lint/style/noProcessEnv: a switch for audits, of no concern to the run
const folder = env["PADDOCK_AUDIT"];
