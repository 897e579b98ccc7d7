/** `paddock token create`: a secret that lets workers into a run until a date. */
import { writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import { addJoinToken } from "@paddock/coordinator";
import { createJoinToken } from "@paddock/service-kit";
import type { Io } from "../io.js";
import { readLedger } from "../run/ledger-records.js";
import { makeRunDir } from "../run/run-directory.js";

export interface TokenFlags {
  /** Milliseconds from now. */
  readonly expires: number;
  readonly runDir?: string;
  readonly out?: string;
}

/** Returns the exit code. Errors: `disk-unavailable`. */
export async function tokenCreate(flags: TokenFlags, io: Io): Promise<number> {
  const expires = Date.now() + flags.expires;
  const token = createJoinToken(expires);
  if (flags.runDir !== undefined) {
    const runDir = resolve(io.cwd, flags.runDir);
    await makeRunDir(runDir);
    await addJoinToken(runDir, token, await runIdOf(runDir));
  }
  if (flags.out === undefined) io.out(`${token}\n`);
  else {
    const file = resolve(io.cwd, flags.out);
    // Only for us, and never over another file's content.
    await writeFile(file, `${token}\n`, { mode: 0o600, flag: "wx" }).catch((error: unknown) => {
      throw unwritable(file, error);
    });
    io.out(`${file}\n`);
  }
  io.err(`good until ${new Date(Math.floor(expires / 1000) * 1000).toISOString()}\n`);
  return 0;
}

function unwritable(file: string, cause: unknown): PaddockError {
  const exists = (cause as NodeJS.ErrnoException).code === "EEXIST";
  return new PaddockError(
    exists ? "already-exists" : "disk-unavailable",
    `expected to make ${file}, received: ${(cause as Error).message}; choose another --out`,
    { cause },
  );
}

/** Null: the run that is started there. */
async function runIdOf(runDir: string): Promise<string | null> {
  const records = (await readLedger(runDir).catch(() => [])) as readonly Record<string, unknown>[];
  const id = records.find(({ kind }) => kind === "run")?.["runId"];
  return typeof id === "string" ? id : null;
}
