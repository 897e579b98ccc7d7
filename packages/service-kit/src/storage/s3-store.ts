/** Checkpoints in S3-compatible storage. */
import { randomUUID } from "node:crypto";
import type {
  ListMultipartUploadsCommandOutput as Page,
  ListMultipartUploadsCommandInput as Question,
} from "@aws-sdk/client-s3";
import { childOf, s3NameOf } from "./location.js";
import { loadS3, type S3 } from "./s3-client.js";
import { corruptObject, isStatus, s3Error } from "./s3-errors.js";
import { openObject } from "./s3-read.js";
import { createObject } from "./s3-upload.js";
import type { CheckpointStore, StoredFile } from "./store.js";

const deletedAtOnce = 8;

export const s3Store: CheckpointStore = {
  // Each waits for the network more than for anything here.
  writesAtOnce: 4,

  prepare: (root) =>
    using(`write to ${root}`, async (s3) => {
      // A name of its own: others may ask the same.
      const { bucket: Bucket, key: Key } = s3NameOf(childOf(root, `.writable-${randomUUID()}`));
      const { sdk, client } = s3;
      await client.send(new sdk.PutObjectCommand({ Bucket, Key, Body: "paddock" }));
      await client.send(new sdk.ListObjectsV2Command({ Bucket, Prefix: Key }));
      await client.send(new sdk.DeleteObjectCommand({ Bucket, Key }));
    }),

  steps: (root) =>
    using(`list ${root}`, async (s3) => {
      const [objects, uploads] = await Promise.all([
        listObjects(s3, root, "/"),
        listUploads(s3, root, "/"),
      ]);
      const names = new Set([...objects.folders, ...uploads.folders]);
      return [...names]
        .filter((name) => /^\d+$/.test(name))
        .map(Number)
        .sort((a, b) => b - a);
    }),

  sizes: (directory) =>
    using(`list ${directory}`, async (s3) => (await listObjects(s3, directory, "/")).sizes),

  async readText(path, maxBytes) {
    const file = await open(path);
    if (file.bytes > maxBytes) {
      throw corruptObject(path, `at most ${maxBytes} bytes`, String(file.bytes));
    }
    const text = Buffer.alloc(file.bytes);
    await file.read(text, 0);
    return text.toString("utf8");
  },

  writeText: (path, Body) =>
    using(`write ${path}`, async ({ sdk, client }) => {
      const { bucket: Bucket, key: Key } = s3NameOf(path);
      await client.send(new sdk.PutObjectCommand({ Bucket, Key, Body }));
    }),

  open,

  create: (path, file, first) =>
    using(`write ${path}`, (s3) => createObject(s3, path, file, first)),

  removeUnfinished: (directory, isOver) =>
    using(`list the uploads to ${directory}`, (s3) => abortUploads(s3, directory, isOver)),

  remove: (directory) =>
    using(`delete ${directory}`, async (s3) => {
      await abortUploads(s3, directory, () => true);
      const { sizes } = await listObjects(s3, directory);
      const names = [...sizes.keys()];
      // Never a manifest without its files.
      const [manifest, others] = [["manifest.json"], names.filter((n) => n !== "manifest.json")];
      if (names.length > others.length) await deleteObjects(s3, directory, manifest);
      await deleteObjects(s3, directory, others);
    }),
};

/** This thread's client, loaded at the first use. */
let loading: Promise<S3> | undefined;

async function using<T>(doing: string, ask: (s3: S3) => Promise<T>): Promise<T> {
  try {
    loading ??= loadS3();
    return await ask(await loading);
  } catch (error) {
    throw s3Error(doing, error);
  }
}

function open(path: string): Promise<StoredFile> {
  return using(`read ${path}`, (s3) => openObject(s3, path));
}

interface Listed {
  /** Names that have others below them, when asked for with the delimiter. */
  readonly folders: readonly string[];
}

async function listObjects(
  { sdk, client }: S3,
  place: string,
  Delimiter?: "/",
): Promise<Listed & { readonly sizes: ReadonlyMap<string, number> }> {
  const { bucket: Bucket, key } = s3NameOf(place);
  const Prefix = `${key}/`;
  const folders: string[] = [];
  const sizes = new Map<string, number>();
  for await (const page of sdk.paginateListObjectsV2({ client }, { Bucket, Prefix, Delimiter })) {
    folders.push(...namesOf(page.CommonPrefixes, Prefix));
    for (const { Key = "", Size = 0 } of page.Contents ?? []) {
      sizes.set(Key.slice(Prefix.length), Size);
    }
  }
  return { folders, sizes };
}

interface Upload {
  readonly name: string;
  readonly id: string | undefined;
}

/** Multipart uploads that are under way or were left behind. */
async function listUploads(
  { sdk, client }: S3,
  place: string,
  Delimiter?: "/",
): Promise<Listed & { readonly uploads: readonly Upload[] }> {
  const { bucket: Bucket, key } = s3NameOf(place);
  const Prefix = `${key}/`;
  const folders: string[] = [];
  const uploads: Upload[] = [];
  let from: Pick<Page, "KeyMarker" | "UploadIdMarker"> | undefined = {};
  while (from) {
    const request: Question = { Bucket, Prefix, Delimiter, ...from };
    // Some servers have no such list, some answer that there is none.
    const page: Page | undefined = await client
      .send(new sdk.ListMultipartUploadsCommand(request))
      .catch((thrown) => {
        if (isStatus(thrown, 501) || thrown.name === "NoSuchUpload") return undefined;
        throw thrown;
      });
    folders.push(...namesOf(page?.CommonPrefixes, Prefix));
    for (const { Key = "", UploadId } of page?.Uploads ?? []) {
      uploads.push({ name: Key.slice(Prefix.length), id: UploadId });
    }
    from = page?.IsTruncated
      ? { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker }
      : undefined;
  }
  return { folders, uploads };
}

function namesOf(
  prefixes: readonly { readonly Prefix?: string | undefined }[] | undefined,
  below: string,
): string[] {
  return (prefixes ?? []).map(({ Prefix = "" }) => Prefix.slice(below.length, -1));
}

async function abortUploads(
  s3: S3,
  directory: string,
  isOver: (name: string) => boolean,
): Promise<void> {
  const { sdk, client } = s3;
  const { uploads } = await listUploads(s3, directory);
  for (const { name, id: UploadId } of uploads.filter((upload) => isOver(upload.name))) {
    const { bucket: Bucket, key: Key } = s3NameOf(childOf(directory, name));
    const abort = new sdk.AbortMultipartUploadCommand({ Bucket, Key, UploadId });
    await client.send(abort).catch((thrown) => {
      // It has ended by itself.
      if (!isStatus(thrown, 404)) throw thrown;
    });
  }
}

async function deleteObjects(
  { sdk, client }: S3,
  directory: string,
  names: readonly string[],
): Promise<void> {
  // One by one: not every server can delete several at once.
  const waiting = names.values();
  const lanes = Array.from({ length: deletedAtOnce }, async () => {
    for (const name of waiting) {
      const { bucket: Bucket, key: Key } = s3NameOf(childOf(directory, name));
      await client.send(new sdk.DeleteObjectCommand({ Bucket, Key }));
    }
  });
  await Promise.all(lanes);
}
