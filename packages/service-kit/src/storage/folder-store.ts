/** Checkpoints in a file system: written under another name past the page cache, synced, renamed. */
import { constants } from "node:fs";
import { lstat, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { PaddockError } from "@paddock/contract";
import { failpoint } from "../failpoints.js";
import { diskError, syncFolder, writeDurably } from "./durable-files.js";
import { pieceBytes } from "./piece-memory.js";
import { createPieceFile, pieceReader } from "./pieces.js";
import type { CheckpointStore, FileToCreate, NewFile, StoredFile } from "./store.js";

export const folderStore: CheckpointStore = {
  // More would only keep others from the thread pool.
  writesAtOnce: 2,

  async prepare(root) {
    await mkdir(root, { recursive: true }).catch((error) => {
      throw diskError(error, `make ${root}`);
    });
  },

  async steps(root) {
    const names = await readdir(root).catch(() => []);
    return names
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .sort((a, b) => b - a);
  },

  async sizes(directory) {
    const names = await readdir(directory).catch(() => []);
    const sizes = names.map(async (name) => {
      // Not its target's: a link could lead out of the folder.
      const found = await lstat(join(directory, name)).catch(() => undefined);
      return found ? ([[name, found.isFile() ? found.size : null]] as const) : [];
    });
    return new Map((await Promise.all(sizes)).flat());
  },

  async readText(path, maxBytes) {
    const { size } = await stat(path).catch(() => ({ size: 0 }));
    if (size > maxBytes) {
      throw new PaddockError(
        "checkpoint-corrupt",
        `${path}: expected at most ${maxBytes} bytes, received ${size}`,
      );
    }
    return await readFile(path, "utf8").catch((error) => {
      throw absent(error);
    });
  },

  async writeText(path, text) {
    await writeDurably(path, text);
    // The directory's own name.
    await syncFolder(dirname(dirname(path)));
  },

  open: openStored,
  create: createFile,

  // The next writer of the step knows them by their generation.
  removeUnfinished: async () => undefined,

  async remove(directory) {
    await rm(directory, { recursive: true, force: true }).catch((error) => {
      throw diskError(error, `delete ${directory}`);
    });
  },
};

async function openStored(path: string): Promise<StoredFile> {
  // A link could lead out of the folder.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW;
  const handle = await open(path, flags).catch((error) => {
    throw absent(error);
  });
  const { size } = await handle.stat();
  return {
    bytes: size,
    pieces: (...how) => pieceReader(handle, ...how),
    async read(target, position) {
      const { bytesRead } = await handle.read(target, 0, target.byteLength, position);
      return bytesRead;
    },
    close: () => handle.close(),
  };
}

async function createFile(
  path: string,
  { bytes, generation }: FileToCreate,
  first: Buffer,
): Promise<NewFile> {
  const directory = dirname(path);
  const temporary = join(directory, `.${basename(path)}.g${generation}.${process.pid}.tmp`);
  const discard = (): Promise<unknown> => unlink(temporary).catch(() => undefined);
  await mkdir(directory, { recursive: true });
  await removeLeftovers(directory, generation);
  const file = await createPieceFile(temporary, first, Math.min(bytes, pieceBytes)).catch(
    async (error) => {
      await discard();
      throw error;
    },
  );
  let isRenamed = false;
  return {
    write: file.write,
    async finish() {
      await file.finish(bytes);
      await failpoint("worker.checkpoint.synced");
      await rename(temporary, path);
      isRenamed = true;
      await failpoint("worker.checkpoint.renamed");
      await syncFolder(directory);
    },
    async close() {
      await file.close();
      if (!isRenamed) await discard();
    },
  };
}

/** Temporary files of older generations: their writers are dead, or too late. Those of newer ones are not ours to touch. */
async function removeLeftovers(directory: string, generation: number): Promise<void> {
  for (const found of await readdir(directory)) {
    const written = /^\.(?:shard|replica)-.*\.g(\d+)\.\d+\.tmp$/.exec(found)?.[1];
    if (written === undefined || Number(written) >= generation) continue;
    await unlink(join(directory, found)).catch(() => undefined);
  }
}

function absent(cause: unknown): PaddockError {
  const { code } = cause as NodeJS.ErrnoException;
  return new PaddockError("not-found", code === "ELOOP" ? "a symbolic link" : "no file", { cause });
}
