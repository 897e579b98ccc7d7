/** The ledger as `ledger.jsonl`: one writer, every append fsynced, every line with its checksum. */

import { type FileHandle, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { PaddockError } from "@paddock/contract";
import { diskError, syncFolder } from "@paddock/service-kit";
import { failpoint } from "@paddock/service-kit/failpoints";
import type { RunRecord } from "../run/durable.js";
import type { Ledger } from "./ledger.js";
import { fromLine, toLine } from "./line.js";
import { lockRun } from "./lock.js";

export interface FileLedger extends Ledger {
  /** Bytes of a last, half-written line that were cut off: a crash during an append, which was never acknowledged. */
  readonly tornBytes: number;
}

/**
 * Opens or creates `<runDir>/ledger.jsonl` and takes `<runDir>/ledger.lock`. The caller closes it.
 * `already-exists` when another process writes it, `ledger-corrupt` when a line fails its checksum.
 */
export async function openFileLedger(runDir: string): Promise<FileLedger> {
  const path = join(runDir, "ledger.jsonl");
  const unlock = await lockRun(runDir);
  let file: FileHandle | undefined;
  try {
    file = await open(path, "a+");
    await syncFolder(dirname(path));
    const { records, goodBytes, tornBytes } = parse(path, await file.readFile());
    if (tornBytes > 0) await file.truncate(goodBytes);
    return { records, tornBytes, ...writer(path, file, goodBytes, unlock) };
  } catch (error) {
    await file?.close();
    await unlock();
    throw diskError(error, `open ${path}`);
  }
}

function writer(
  path: string,
  file: FileHandle,
  goodBytes: number,
  unlock: () => Promise<void>,
): Pick<Ledger, "append" | "close"> {
  let bytes = goodBytes;
  return {
    async append(record) {
      const line = toLine(record);
      try {
        const half = (): Promise<void> => file.appendFile(line.slice(0, line.length >> 1));
        await failpoint("coordinator.ledger.appending", { half });
        await file.appendFile(line);
        await file.datasync();
        bytes += Buffer.byteLength(line);
      } catch (error) {
        // Part of the line may be there: the next one must not follow it.
        await file.truncate(bytes);
        throw diskError(error, `append to ${path}`);
      }
    },
    async close() {
      await file.close();
      await unlock();
    },
  };
}

interface Parsed {
  readonly records: RunRecord[];
  readonly goodBytes: number;
  readonly tornBytes: number;
}

/** The longest are specs and, with LARS, commits with two norms per parameter: some hundred kilobytes. */
const maxLineCharacters = 8 * 2 ** 20;

function parse(path: string, bytes: Buffer): Parsed {
  // A line without its newline was never acknowledged, whatever it holds.
  const goodBytes = bytes.lastIndexOf("\n") + 1;
  const lines = bytes.toString("utf8", 0, goodBytes).split("\n").slice(0, -1);
  const records = lines.map((line, index) => {
    const record = line.length > maxLineCharacters ? undefined : fromLine(line);
    if (!record) {
      throw new PaddockError(
        "ledger-corrupt",
        `${path}, line ${index + 1}: expected a record that matches its checksum, received ${JSON.stringify(line.slice(0, 60))}; restore the file from a backup, or cut it before that line: the run then resumes from the last checkpoint recorded before it`,
      );
    }
    return record;
  });
  return { records, goodBytes, tornBytes: bytes.length - goodBytes };
}
