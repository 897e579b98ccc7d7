/** Writing files so that a crash leaves the old or the new one, never half of one. */

import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { PaddockError } from "@paddock/contract";
import { failpoint } from "../failpoints.js";

/** Replaces `path` with `text`; durable, with its name, when it resolves. */
export async function writeDurably(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`;
  try {
    const file = await open(temporary, "w");
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await failpoint("coordinator.file.synced");
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (error) {
    throw diskError(error, `write ${path}`);
  }
}

/** Makes the names in a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** The `disk-unavailable` error for a failed system call; our own errors pass through. */
export function diskError(error: unknown, doing: string): PaddockError {
  if (error instanceof PaddockError) return error;
  const { code = "?", message } = error as NodeJS.ErrnoException;
  const remedy =
    code === "ENOSPC" || code === "EDQUOT"
      ? "make room there"
      : "check that the run directory exists, is a folder and may be written, then resume";
  return new PaddockError(
    "disk-unavailable",
    `expected to ${doing}, received ${code}: ${message}; ${remedy}`,
    { cause: error },
  );
}
