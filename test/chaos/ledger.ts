/** What the ledger says so far, read while the coordinator writes it. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { LedgerRecord } from "@paddock/contract";

export interface LedgerView {
  readonly records: readonly LedgerRecord[];
  /** When each of them was first seen, in unix milliseconds: a record says when it was decided, which may be long before. */
  readonly seenMs: readonly number[];
  /** The generation of the last record. */
  readonly generation: number;
  /** Committed steps. */
  readonly next: number;
  readonly finished: boolean;
}

/** Follows the file; every call of `read` looks at what is new in it. */
export class LedgerReader {
  readonly #path: string;
  #records: LedgerRecord[] = [];
  #seenMs: number[] = [];
  #bytes = 0;

  constructor(runDir: string) {
    this.#path = join(runDir, "ledger.jsonl");
  }

  /** Complete lines only: the last one may be on its way, or torn. */
  read(): LedgerView {
    const size = existsSync(this.#path) ? statSync(this.#path).size : 0;
    if (size > this.#bytes) {
      const text = readFileSync(this.#path).subarray(this.#bytes);
      const whole = text.subarray(0, text.lastIndexOf("\n") + 1);
      const lines = whole.toString("utf8").split("\n").slice(0, -1);
      this.#records = [...this.#records, ...lines.map((line) => JSON.parse(line) as LedgerRecord)];
      this.#seenMs = [...this.#seenMs, ...lines.map(() => Date.now())];
      this.#bytes += whole.length;
    }
    return viewOf(this.#records, this.#seenMs);
  }
}

function viewOf(records: readonly LedgerRecord[], seenMs: readonly number[]): LedgerView {
  let [generation, next] = [0, 0];
  for (const record of records) {
    if (record.kind === "generation") [generation, next] = [record.generation, record.step];
    if (record.kind === "commit") next = record.step + 1;
  }
  return { records, seenMs, generation, next, finished: records.at(-1)?.kind === "finished" };
}

/** By step: the generation whose commit counts. A generation that starts at an earlier step voids the commits after it. */
export function committedSteps(records: readonly LedgerRecord[]): Map<number, number> {
  const by = new Map<number, number>();
  for (const record of records) {
    if (record.kind === "generation") {
      for (const step of [...by.keys()]) if (step >= record.step) by.delete(step);
    }
    if (record.kind === "commit") by.set(record.step, record.generation);
  }
  return by;
}

/** Commits that a later generation voided: steps that were computed again although they had been committed. */
export function lostCommits(records: readonly LedgerRecord[]): number {
  let [next, lost] = [0, 0];
  for (const record of records) {
    if (record.kind === "generation") {
      lost += Math.max(0, next - record.step);
      next = record.step;
    }
    if (record.kind === "commit") next = record.step + 1;
  }
  return lost;
}
