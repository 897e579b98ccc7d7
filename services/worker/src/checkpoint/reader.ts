/** Reads a checkpoint, written by any number of workers: every byte is verified before any value is used. */
import {
  intersect,
  invariant,
  type Manifest,
  type ManifestFile,
  PaddockError,
  type Range,
  type StatePart,
} from "@paddock/contract";
import { absolutePlace, parentOf } from "@paddock/service-kit/checkpoint-store";
import { listCheckpoints } from "./list.js";
import { checkUnits, corrupt, readManifest, type UnitCheck } from "./manifest.js";
import { newPieceMemory } from "./memory.js";
import { newBlocks, openVerified, type VerifiedFile, type VerifyOptions } from "./verified-file.js";
import { replicaName } from "./writer.js";

export interface Checkpoint {
  readonly manifest: Manifest;
  /** Length of every vector and value in it by name, in the order of names. */
  readonly vectors: ReadonlyMap<string, number>;
  /** Elements [start, end) of one kind of a unit that was expected; the caller owns them. */
  readRange(kind: string, unit: string, start: number, end: number): Promise<Float32Array>;
  /** A value that is not sharded, or undefined; the caller owns it. */
  extra(name: string): Promise<Float32Array | undefined>;
  close(): Promise<void>;
}

/** Files that are hashed at once: a second one hides the first one's waits for the disk. */
const parallelFiles = 2;

interface Piece {
  readonly file: VerifiedFile;
  readonly range: Range;
}

/** What a checkpoint must hold to be opened. */
export interface ExpectedState {
  readonly parts: readonly Pick<StatePart, "kind" | "units">[];
  /** own: its units are exactly the student's; part: others may be there, as in another run's checkpoint. */
  readonly units: UnitCheck;
  /** SHA-256 that manifest.json must have, in lower-case hex; null: any. */
  readonly sha256?: string | null;
}

/**
 * Opens the checkpoint in `directory` (`checkpoints/<step>`); the caller closes it. `checkpoint-corrupt` when the manifest,
 * a file's size, hash or header, or the coverage of what is expected is not right; `not-found` when there is no manifest.
 */
export async function openCheckpoint(
  directory: string,
  { parts, units, sha256 = null }: ExpectedState,
): Promise<Checkpoint> {
  try {
    const manifest = await readManifest(directory, sha256);
    for (const part of parts) {
      // A frozen teacher's units are not those that the manifest lists; its coverage is checked all the same.
      if (part.kind !== "frozen") checkUnits(directory, manifest, part.units, units);
    }
    const files = await openAll(directory, manifest);
    try {
      const pieces = piecesOf(files);
      checkCoverage(directory, pieces, parts);
      return checkpointOf({ manifest, files, pieces, extras: extrasOf(files) });
    } catch (error) {
      await closeAll(files);
      throw error;
    }
  } catch (error) {
    throw await withRemedy(error, directory);
  }
}

interface Opened {
  readonly manifest: Manifest;
  readonly files: readonly VerifiedFile[];
  /** By "<kind>/<unit>", in order. */
  readonly pieces: ReadonlyMap<string, readonly Piece[]>;
  readonly extras: ReadonlyMap<string, Float32Array>;
}

function checkpointOf({ manifest, files, pieces, extras }: Opened): Checkpoint {
  return {
    manifest,
    vectors: vectorsOf(pieces, extras),
    async readRange(kind, unit, start, end) {
      const parts = pieces.get(`${kind}/${unit}`);
      const elements = parts?.at(-1)?.range.end ?? 0;
      invariant(
        parts && 0 <= start && start <= end && end <= elements,
        `elements [${start}, ${end}) of ${kind}/${unit}, which has ${elements}`,
      );
      const values = new Float32Array(end - start);
      for (const { file, range } of parts) {
        const common = intersect(range, { start, end });
        if (!common) continue;
        const target = values.subarray(common.start - start, common.end - start);
        await file.read(`${kind}/${unit}`, common.start - range.start, target);
      }
      return values;
    },
    async extra(name) {
      return extras.get(name)?.slice();
    },
    close: () => closeAll(files),
  };
}

function vectorsOf(
  pieces: Opened["pieces"],
  extras: Opened["extras"],
): ReadonlyMap<string, number> {
  const lengths = [
    ...[...pieces].map(([name, list]) => [name, list.at(-1)?.range.end ?? 0] as const),
    ...[...extras].map(([name, { length }]) => [name, length] as const),
  ];
  return new Map(lengths.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** How each file of a checkpoint is read. */
export type HowToOpen = (entry: ManifestFile) => Omit<VerifyOptions, "blocks"> & {
  /** Where a file is damaged. */ readonly orReplica?: boolean;
};

/**
 * All or none: the first failure closes what is open.
 * Extra memory: `parallelFiles` times `blocksAhead` blocks of 8 MiB, whatever the size of the checkpoint.
 * @param memory to be used for that, by nobody else meanwhile; absent: new
 */
export async function openAll(
  directory: string,
  manifest: Manifest,
  how: HowToOpen = () => ({}),
  memory = newPieceMemory(),
): Promise<VerifiedFile[]> {
  const files: VerifiedFile[] = [];
  const waiting = manifest.files.values();
  let failure: unknown;
  const openSome = async (lane: number): Promise<void> => {
    const largest = Math.max(0, ...manifest.files.map(({ bytes }) => bytes));
    const blocks = newBlocks(memory, lane, largest);
    for (const entry of waiting) {
      if (failure !== undefined) return;
      files.push(await openOne(directory, manifest, entry, { ...how(entry), blocks }));
    }
  };
  const lanes = Array.from({ length: Math.min(parallelFiles, manifest.files.length) }, (_, lane) =>
    openSome(lane).catch((error: unknown) => {
      failure ??= error;
    }),
  );
  await Promise.all(lanes);
  if (failure === undefined) return files;
  await closeAll(files);
  throw failure;
}

async function openOne(
  directory: string,
  manifest: Manifest,
  entry: ManifestFile,
  { orReplica = false, ...options }: VerifyOptions & { readonly orReplica?: boolean },
): Promise<VerifiedFile> {
  try {
    return await openVerified(directory, manifest, entry, options);
  } catch (damage) {
    const replica = { ...entry, name: replicaName(entry.name) };
    if (!orReplica || replica.name === entry.name) throw damage;
    const file = await openVerified(directory, manifest, replica, options).catch(() => {
      throw damage;
    });
    return { ...file, damage: PaddockError.from(damage).message };
  }
}

export async function closeAll(files: readonly VerifiedFile[]): Promise<void> {
  for (const file of files) await file.close();
}

function piecesOf(files: readonly VerifiedFile[]): Map<string, Piece[]> {
  const pieces = new Map<string, Piece[]>();
  for (const file of files) {
    for (const [name, range] of file.ranges) {
      const list = pieces.get(name) ?? [];
      list.push({ file, range });
      pieces.set(name, list);
    }
  }
  for (const list of pieces.values()) {
    // By start, then end: empty shards come before the one that begins where they lie.
    list.sort(({ range: a }, { range: b }) => a.start - b.start || a.end - b.end);
  }
  return pieces;
}

export function extrasOf(files: readonly VerifiedFile[]): Map<string, Float32Array> {
  const all = new Map<string, Float32Array>();
  for (const { path, extras } of files) {
    for (const [name, values] of extras) {
      if (all.has(name)) throw corrupt(path, `expected one ${name}, received a second one`);
      all.set(name, values);
    }
  }
  return all;
}

/** Every element of every kind and unit exactly once. */
function checkCoverage(
  directory: string,
  pieces: ReadonlyMap<string, readonly Piece[]>,
  parts: ExpectedState["parts"],
): void {
  for (const { kind, units } of parts) {
    for (const unit of units) {
      const name = `${kind}/${unit.name}`;
      let covered = 0;
      for (const { file, range } of pieces.get(name) ?? []) {
        if (range.start !== covered) {
          throw corrupt(
            file.path,
            `${name}: expected element ${covered} next, received ${range.start}`,
          );
        }
        covered = range.end;
      }
      if (covered !== unit.elements) {
        throw corrupt(
          directory,
          `${name}: expected ${unit.elements} elements, received ${covered}; is a file missing from its manifest?`,
        );
      }
    }
  }
}

/** Says what can be done: with the newest other checkpoint there is. */
export async function withRemedy(thrown: unknown, directory: string): Promise<unknown> {
  if (!(thrown instanceof PaddockError) || thrown.code !== "checkpoint-corrupt") return thrown;
  const here = absolutePlace(directory);
  const listed = await listCheckpoints(parentOf(here)).catch(() => []);
  const others = listed.filter((other) => other.directory !== here);
  const other = others[0]
    ? `the newest other complete checkpoint is ${others[0].directory}`
    : "there is no other complete checkpoint beside it";
  return new PaddockError(
    "checkpoint-corrupt",
    `${thrown.message}. Nothing was loaded. \`paddock checkpoint repair\` mends it if it has a replica; else restore it from a copy; ${other}`,
    { cause: thrown },
  );
}
