/** What checkpoints lie in: a file system, or S3-compatible storage. Everything that reads or writes one goes through this. */
import type { PieceReader } from "./pieces.js";

/**
 * Places are strings: a folder's path, or `s3://bucket/prefix`. They are what crosses threads and the wire; `storeOf` gives the store of one,
 * `childOf` a place below it. A run has a root (`checkpointRoot`), a checkpoint is the directory `<root>/<step>`, and its files lie in it.
 *
 * A file is there as a whole and durable, or not there: nobody ever sees one half. Nothing read is believed here: whoever reads compares with
 * the manifest's hashes. Errors: `disk-unavailable` (with place, expected, received, remedy) when the storage refuses or cannot be
 * reached, `not-found` only where it is said; the file system's own errors pass through `open`, `create`, `NewFile` as they are.
 */
export interface CheckpointStore {
  /** Writes of one file that are worth having under way at once. */
  readonly writesAtOnce: number;
  /** Makes the root, or finds out that nothing can be written there. */
  prepare(root: string): Promise<void>;
  /** The steps of which there is anything, complete or not, newest first; none where there is no such root. */
  steps(root: string): Promise<number[]>;
  /** Bytes of a directory's files by name; null: not a plain file. Empty where there is no such directory. */
  sizes(directory: string): Promise<ReadonlyMap<string, number | null>>;
  /** `not-found`, with what there is instead as message; `checkpoint-corrupt` when it has more than `maxBytes`. */
  readText(path: string, maxBytes: number): Promise<string>;
  /** Replaces a small file. */
  writeText(path: string, text: string): Promise<void>;
  /** The caller closes it. `not-found`, with what there is instead as message. */
  open(path: string): Promise<StoredFile>;
  /** A new file that begins with `first`; its directory is made. The caller closes it. */
  create(path: string, file: FileToCreate, first: Buffer): Promise<NewFile>;
  /** Removes what unfinished writers of such files left in a directory, where nothing else does: their files are complete by now. */
  removeUnfinished(directory: string, isOver: (name: string) => boolean): Promise<void>;
  /** Deletes a directory with everything in it. */
  remove(directory: string): Promise<void>;
}

/** Stays the same file while it is open, whatever its name stands for by then. */
export interface StoredFile {
  readonly bytes: number;
  /**
   * For one pass over its pieces, which may be read ahead.
   * @param bytes that are to be read
   * @param buffer one of those that will be read into
   * @param mayBeCached as the system remembers it; else as it lies on the disk
   */
  pieces(bytes: number, buffer: Buffer | undefined, mayBeCached?: boolean): Promise<PieceReader>;
  /** Fills `target` from `position` on, as far as the file goes; returns the bytes read, 0 only at its end. */
  read(target: Uint8Array, position: number): Promise<number>;
  close(): Promise<void>;
}

export interface FileToCreate {
  /** All of it. */
  readonly bytes: number;
  /** Who writes: what older generations left of the same step's files is removed. */
  readonly generation: number;
}

/** A file that is written in pieces of `pieceBytes`, in any order, each once. */
export interface NewFile {
  /**
   * The first `length` bytes of a buffer of whole blocks: what lies behind in it is overwritten with zeros. They must stay unchanged until that is
   * done; the first piece, which is written already, until `finish` is done.
   */
  write(index: number, piece: Buffer, length: number): Promise<void>;
  /** Once every piece is written: it is there under its name, whole and durable. */
  finish(): Promise<void>;
  /** Without `finish`, or when that failed: nothing of it stays. */
  close(): Promise<void>;
}
