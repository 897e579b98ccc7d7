/** One ledger record as one line of JSON that ends with its own checksum. */
import type { RunRecord } from "../run/durable.js";
import { crc32c } from "./crc32c.js";

/** The line, with its newline. */
export function toLine(record: RunRecord): string {
  const json = JSON.stringify(record);
  return `${json.slice(0, -1)},"crc":"${crc32c(json).toString(16).padStart(8, "0")}"}\n`;
}

/** The record of a line (without newline), or undefined when line and checksum do not belong together. */
export function fromLine(line: string): RunRecord | undefined {
  const match = /,"crc":"([0-9a-f]{8})"\}$/.exec(line);
  if (!match) return undefined;
  const json = `${line.slice(0, match.index)}}`;
  if (crc32c(json) !== Number.parseInt(match[1] as string, 16)) return undefined;
  return JSON.parse(json) as RunRecord;
}
