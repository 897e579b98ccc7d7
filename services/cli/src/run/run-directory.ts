/** Run directories: where a new one goes, what an existing one holds. */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PaddockError, parseRunSpec, type RunSpec } from "@paddock/contract";

/** Folder of run directories that were not named. */
const parent = "runs";

/** `runs/<name>-<yyyymmdd>-<hhmmss>` in `cwd`, absolute. */
export function newRunDir(cwd: string, name: string, now: Date): string {
  const digits = now.toISOString().replace(/\D/g, "");
  return resolve(cwd, parent, `${name}-${digits.slice(0, 8)}-${digits.slice(8, 14)}`);
}

/** Makes the folder if it does not exist; returns whether it did that. Errors: `disk-unavailable`. */
export async function makeRunDir(runDir: string): Promise<boolean> {
  try {
    return (await mkdir(runDir, { recursive: true })) !== undefined;
  } catch (error) {
    throw unwritable(runDir, error);
  }
}

function unwritable(runDir: string, cause: unknown): PaddockError {
  return new PaddockError(
    "disk-unavailable",
    `expected to make the run directory ${runDir}, received: ${PaddockError.from(cause).message}; choose another with --run-dir`,
    { cause },
  );
}

/** Whether a run, or a run's stages, were started there. */
export function holdsRun(runDir: string): boolean {
  return ["spec.json", "ledger.jsonl", "stages.json"].some((name) =>
    existsSync(join(runDir, name)),
  );
}

/** Errors: `not-found` when there is nothing to resume in `runDir`. */
export function checkHoldsRun(runDir: string): void {
  if (holdsRun(runDir)) return;
  throw new PaddockError(
    "not-found",
    `expected a run to resume in ${runDir}, found none; check the directory, or start a run`,
  );
}

/** The spec a run was started with. Errors: `not-found`. */
export async function readRunSpec(runDir: string): Promise<RunSpec> {
  const file = join(runDir, "spec.json");
  return parseRunSpec(await readJson(file));
}

/** A JSON file of a run directory. Errors: `not-found`. */
export async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    throw unreadable(file, error);
  }
}

function unreadable(file: string, cause: unknown): PaddockError {
  return new PaddockError(
    "not-found",
    `expected a run's ${file}, received: ${PaddockError.from(cause).message}; is this a run directory?`,
    { cause },
  );
}

/** The run directory of `cwd`'s runs/ that was written to last, optionally of runs called `name`. Errors: `not-found`. */
export async function newestRunDir(cwd: string, name?: string): Promise<string> {
  const folder = resolve(cwd, parent);
  const names = await readdir(folder).catch(() => []);
  const runs = names
    .filter((entry) => name === undefined || entry.startsWith(`${name}-`))
    .map((entry) => join(folder, entry))
    .filter(holdsRun);
  const times = await Promise.all(runs.map(async (run) => (await stat(run)).mtimeMs));
  const newest = runs[times.indexOf(Math.max(...times))];
  if (newest !== undefined) return newest;
  throw new PaddockError(
    "not-found",
    `expected a run${name === undefined ? "" : ` called ${name}`} in ${folder}, found none; name its directory`,
  );
}
