/** One writer per run directory: a lock file that names its process, so that the lock of a dead one can be taken over. */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { PaddockError } from "@paddock/contract";

interface Holder {
  readonly pid: number;
  readonly host: string;
  /** When the process started, in the kernel's ticks: tells a process from a later one with its pid. Linux only. */
  readonly startTicks: string | null;
  /** Unique per lock. */
  readonly nonce: string;
}

/** Nonces of the locks that this process holds: in a container every coordinator has the same pid. */
const held = new Set<string>();
const attempts = 3;

/**
 * Takes the lock and returns the function that releases it. `already-exists` when a live process holds it, or one on
 * another host, of which nobody here can tell.
 */
async function lock(path: string): Promise<() => Promise<void>> {
  const mine: Holder = {
    pid: process.pid,
    host: hostname(),
    startTicks: startTicksOf(process.pid),
    nonce: randomUUID(),
  };
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (await create(path, mine)) {
      held.add(mine.nonce);
      return async () => {
        held.delete(mine.nonce);
        await rm(path, { force: true });
      };
    }
    await removeIfStale(path);
  }
  throw new PaddockError(
    "already-exists",
    `expected to take the lock ${path}, but others keep taking it; is something starting coordinators in a loop?`,
  );
}

/** Keeps coordinators away from a run, or says that one has it: `already-exists`. Returns the function that lets them in again. */
export function lockRun(runDir: string): Promise<() => Promise<void>> {
  return lock(join(runDir, "ledger.lock"));
}

/** Creates the lock with its content in one step: nobody ever reads an empty one. */
async function create(path: string, holder: Holder): Promise<boolean> {
  const temporary = `${path}.${holder.nonce}`;
  await writeFile(temporary, `${JSON.stringify(holder)}\n`);
  try {
    await link(temporary, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Removes the lock of a dead process; throws when it is held. */
async function removeIfStale(path: string): Promise<void> {
  const text = await readIfThere(path);
  if (text === undefined) return;
  const holder = parse(text);
  if (holder && isHeld(holder)) {
    throw new PaddockError(
      "already-exists",
      `expected no other coordinator on this run, but process ${holder.pid} on ${holder.host} holds ${path}; stop it, or, if you are sure that it is gone, delete that file`,
    );
  }
  // Moved aside first: if it was replaced since we read it, it is somebody's live lock, and goes back.
  const aside = `${path}.stale-${process.pid}`;
  await rename(path, aside).catch(ignoreMissing);
  const moved = await readIfThere(aside);
  if (moved !== undefined && moved !== text) await rename(aside, path);
  else await rm(aside, { force: true });
}

function isHeld({ pid, host, startTicks, nonce }: Holder): boolean {
  if (host !== hostname()) return true;
  if (pid === process.pid) return held.has(nonce);
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  return startTicks === null || startTicks === startTicksOf(pid);
}

/** Field 22 of /proc/<pid>/stat; the second field, a name in parentheses, may hold spaces. */
function startTicksOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? null;
  } catch {
    return null;
  }
}

/** Undefined for what is no lock of ours. */
function parse(text: string): Holder | undefined {
  try {
    return JSON.parse(text) as Holder;
  } catch {
    return undefined;
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    ignoreMissing(error);
    return undefined;
  }
}

function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
}
