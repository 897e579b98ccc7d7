/** The truth about a run, as an append-only list. A port: files in production, memory in tests. */
import type { RunRecord } from "../run/durable.js";

export interface Ledger {
  /** What it held when it was opened, oldest first. */
  readonly records: readonly RunRecord[];
  /** Resolves when the record is durable; rejects with `disk-unavailable`, and then has not changed. One at a time. */
  append(record: RunRecord): Promise<void>;
  /** Gives up the right to write. */
  close(): Promise<void>;
}

/** A ledger that lives as long as its caller keeps `records`. */
export function openMemoryLedger(records: RunRecord[] = []): Ledger {
  return {
    records: [...records],
    append: async (record) => void records.push(record),
    close: async () => undefined,
  };
}
