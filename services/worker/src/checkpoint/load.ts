/**
 * Fills a worker's shards from a checkpoint that any number of workers wrote, in one pass over the bytes of the files that hold some of
 * them: hashed on the way, and not to be used when this rejects. Of the other files only the head is read; those whose shards they are
 * read the rest.
 */
import {
  intersect,
  invariant,
  type Manifest,
  type ManifestFile,
  shardOf,
  type Unit,
} from "@paddock/contract";
import type { PieceMemory } from "@paddock/service-kit/checkpoint-store";
import type { Wanted } from "./file-content.js";
import { checkUnits, corrupt, readManifest } from "./manifest.js";
import {
  closeAll,
  type ExpectedState,
  extrasOf,
  type HowToOpen,
  openAll,
  withRemedy,
} from "./reader.js";
import type { VerifiedFile } from "./verified-file.js";

export interface Loaded {
  readonly manifest: Manifest;
  /** What is not sharded. */
  readonly extras: ReadonlyMap<string, Float32Array>;
  /** What was wrong with files that were read from their replicas. */
  readonly damages: readonly string[];
}

export interface LoadOptions {
  /** Reused by later loads; absent: new memory. One load at a time. */
  readonly memory?: PieceMemory;
  /** Often, while bytes move. */
  readonly onProgress?: () => void;
}

/** Errors as of `openCheckpoint`; then the targets hold anything. */
export async function loadCheckpoint(
  directory: string,
  expected: ExpectedState,
  wanted: readonly Wanted[],
  { memory, onProgress }: LoadOptions = {},
): Promise<Loaded> {
  const { parts, units, sha256 = null } = expected;
  try {
    const manifest = await readManifest(directory, sha256);
    for (const part of parts) {
      // A frozen teacher's units are not those that the manifest lists; its coverage is checked all the same.
      if (part.kind !== "frozen") checkUnits(directory, manifest, part.units, units);
    }
    checkWriters(directory, manifest);
    const known = parts.flatMap((part) => part.units);
    const how: HowToOpen = (entry) => ({
      wanted,
      orReplica: true,
      by: "ghash",
      mayBeCached: true,
      part: isNeeded(entry, manifest, wanted, known) ? "all" : "head",
      ...(onProgress ? { onProgress } : {}),
    });
    const files = await openAll(directory, manifest, how, memory);
    await closeAll(files);
    for (const one of wanted) checkFilled(directory, files, one);
    const damages = files.flatMap(({ damage }) => damage ?? []);
    return { manifest, extras: extrasOf(files), damages };
  } catch (error) {
    throw await withRemedy(error, directory);
  }
}

/** One file of each worker: without them all, whose shards lie where cannot be told from the manifest. */
function checkWriters(directory: string, { files, workers }: Manifest): void {
  const writers = files.map(({ worker }) => worker).sort((a, b) => a - b);
  if (writers.length === workers && writers.every((worker, i) => worker === i)) return;
  throw corrupt(
    directory,
    `expected one file of each of ${workers} workers in its manifest, received those of ${writers.join(", ") || "none"}`,
  );
}

function isNeeded(
  { worker }: ManifestFile,
  { workers }: Manifest,
  wanted: readonly Wanted[],
  units: readonly Unit[],
): boolean {
  return wanted.some(({ unit, start, target }) => {
    const known = units.find(({ name }) => name === unit);
    invariant(known, `${unit} is wanted and not expected`);
    const held = shardOf(known.elements, worker, workers);
    return intersect(held, { start, end: start + target.length }) !== undefined;
  });
}

/** Every element exactly once. */
function checkFilled(directory: string, files: readonly VerifiedFile[], wanted: Wanted): void {
  const { kind, unit, start, target } = wanted;
  const name = `${kind}/${unit}`;
  const end = start + target.length;
  const parts = files
    .filter(({ isWhole }) => isWhole)
    .map(({ ranges }) => ranges.get(name))
    .map((range) => range && intersect(range, { start, end }))
    .filter((range) => range !== undefined)
    .sort((a, b) => a.start - b.start);
  let filled = start;
  for (const range of parts) {
    if (range.start !== filled) {
      throw corrupt(directory, `${name}: expected element ${filled} next, received ${range.start}`);
    }
    filled = range.end;
  }
  if (filled === end) return;
  throw corrupt(
    directory,
    `${name}: expected elements up to ${end}, received those up to ${filled}; is a file missing from its manifest?`,
  );
}
