/** Image files below a folder; the subfolders of the first level, if any, are the classes. */
import type { Dirent } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import { extname, join } from "node:path";
import { type DataSpec, PaddockError } from "@paddock/contract";
import type { Dataset, Split } from "./dataset.js";
import { decodeFile } from "./decode.js";

/** What sharp's bundled libvips decodes. */
const extensions = new Set([".avif", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"]);

/** A listing that can be posted to a thread without copying: a million paths are tens of megabytes. */
export interface FolderSource {
  readonly kind: "folder";
  readonly root: string;
  readonly maxSide: number;
  readonly classes: readonly string[] | null;
  /** Paths relative to the root, UTF-8, one after the other, in shared memory. */
  readonly paths: Uint8Array;
  /** Where each path ends in `paths`. */
  readonly ends: Uint32Array;
  /** Index into `classes`, or -1. */
  readonly labels: Int32Array;
}

/** Lists a split in sorted order (by UTF-16 code units, the same on every machine). */
export async function readFolder(data: DataSpec, split: Split): Promise<FolderSource> {
  const root = rootOf(data, split);
  const files = await listImages(root);
  if (files.length === 0) {
    throw new PaddockError(
      "data-unavailable",
      `${root}: expected image files (${[...extensions].join(" ")}), found none; check data.${field(split)}`,
    );
  }
  // Classes come from the training folder first, so that labels agree between splits even if one of them lacks a class.
  const known = await classFolders(data.path);
  const own = split === "train" ? [] : await classFolders(root);
  const classes = [...known, ...own.filter((name) => !known.includes(name))];
  return pack(root, data.maxSide, files, classes);
}

/** The dataset of a listing. */
export function folderDataset(source: FolderSource): Dataset {
  const { root, paths, ends, labels, classes, maxSide } = source;
  const describe = (id: number): string => {
    const start = id === 0 ? 0 : (ends[id - 1] as number);
    return join(root, Buffer.from(paths.subarray(start, ends[id])).toString("utf8"));
  };
  return {
    classes,
    count: ends.length,
    label: (id) => ((labels[id] as number) < 0 ? null : (labels[id] as number)),
    describe,
    load: (id) => decodeFile(describe(id), maxSide),
  };
}

function field(split: Split): "path" | "validationPath" {
  return split === "train" ? "path" : "validationPath";
}

function rootOf(data: DataSpec, split: Split): string {
  if (split === "train") return data.path;
  if (data.validationPath !== null) return data.validationPath;
  throw new PaddockError(
    "data-unavailable",
    "data.validationPath: expected a folder of held-out images, received none; set it, or set evaluation.everySteps to 0",
  );
}

/** Paths of image files relative to the root, depth first, sorted. Follows symbolic links; a real folder is visited once. */
async function listImages(root: string): Promise<string[]> {
  const files: string[] = [];
  const visited = new Set<string>();
  const visit = async (relative: string): Promise<void> => {
    const folder = join(root, relative);
    const real = await realpath(folder).catch((error: unknown) => unavailable(root, folder, error));
    if (visited.has(real)) return;
    visited.add(real);
    for (const entry of await entriesOf(root, folder)) {
      const path = relative === "" ? entry.name : `${relative}/${entry.name}`;
      const kind = await kindOf(entry, join(root, path));
      if (kind === "folder") await visit(path);
      else if (kind === "file" && isImageName(entry.name)) files.push(path);
    }
  };
  await visit("");
  return files;
}

async function entriesOf(root: string, folder: string): Promise<Dirent[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) =>
    unavailable(root, folder, error),
  );
  return entries
    .filter((entry) => !entry.name.startsWith("."))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A dangling link is nothing. */
async function kindOf(entry: Dirent, path: string): Promise<"folder" | "file" | "other"> {
  const of = (it: { isDirectory(): boolean; isFile(): boolean }) =>
    it.isDirectory() ? "folder" : it.isFile() ? "file" : "other";
  if (!entry.isSymbolicLink()) return of(entry);
  const target = await stat(path).catch(() => null);
  return target === null ? "other" : of(target);
}

function isImageName(name: string): boolean {
  return extensions.has(extname(name).toLowerCase());
}

/** Names of the first-level subfolders, sorted; empty if the folder cannot be read (it may exist on another machine only). */
async function classFolders(root: string): Promise<string[]> {
  const entries = await entriesOf(root, root).catch(() => []);
  const names: string[] = [];
  for (const entry of entries) {
    if ((await kindOf(entry, join(root, entry.name))) === "folder") names.push(entry.name);
  }
  return names;
}

function pack(
  root: string,
  maxSide: number,
  files: readonly string[],
  classes: readonly string[],
): FolderSource {
  const text = Buffer.from(files.join(""), "utf8");
  const paths = new Uint8Array(new SharedArrayBuffer(text.length));
  paths.set(text);
  const ends = new Uint32Array(new SharedArrayBuffer(4 * files.length));
  const labels = new Int32Array(new SharedArrayBuffer(4 * files.length));
  const labelOf = new Map(classes.map((name, label) => [name, label]));
  let end = 0;
  files.forEach((file, id) => {
    end += Buffer.byteLength(file, "utf8");
    ends[id] = end;
    labels[id] = labelOf.get(file.slice(0, Math.max(0, file.indexOf("/")))) ?? -1;
  });
  const isLabelled = labels.some((label) => label >= 0);
  return {
    kind: "folder",
    root,
    maxSide,
    classes: isLabelled ? classes : null,
    paths,
    ends,
    labels,
  };
}

function unavailable(root: string, folder: string, error: unknown): never {
  const code = (error as NodeJS.ErrnoException).code ?? String(error);
  throw new PaddockError(
    "data-unavailable",
    `${folder}: expected a readable folder of images, received ${code}; check data.path and data.validationPath (${root})`,
    { cause: error },
  );
}
