/** A file on its way into S3-compatible storage: nobody sees it before its last byte is there. */
import { invariant, PaddockError } from "@paddock/contract";
import { failpoint } from "../failpoints.js";
import { s3NameOf } from "./location.js";
import { pieceBytes } from "./piece-memory.js";
import type { S3 } from "./s3-client.js";
import { s3Error } from "./s3-errors.js";
import type { FileToCreate, NewFile } from "./store.js";

/** What S3 allows. */
const maxParts = 10_000;

/** A file of one piece is one object put at its end; a larger one is a multipart upload whose parts are the pieces. */
export async function createObject(
  s3: S3,
  path: string,
  { bytes }: FileToCreate,
  first: Buffer,
): Promise<NewFile> {
  const { sdk, client } = s3;
  const { bucket: Bucket, key: Key } = s3NameOf(path);
  if (bytes <= pieceBytes) {
    return newFile(async () => {
      await client.send(new sdk.PutObjectCommand({ Bucket, Key, Body: first.subarray(0, bytes) }));
    }, path);
  }
  if (bytes > maxParts * pieceBytes) {
    throw new PaddockError(
      "disk-unavailable",
      `expected to write at most ${maxParts * pieceBytes} bytes to ${path}, received ${bytes}; use more workers: each writes its shard`,
    );
  }
  const created = new sdk.CreateMultipartUploadCommand({ Bucket, Key });
  const { UploadId } = await asked(`write ${path}`, () => client.send(created));
  const parts: { readonly PartNumber: number; readonly ETag: string | undefined }[] = [];
  const write = async (index: number, piece: Buffer, length: number): Promise<void> => {
    const PartNumber = index + 1;
    const Body = piece.subarray(0, length);
    const part = new sdk.UploadPartCommand({ Bucket, Key, UploadId, PartNumber, Body });
    const { ETag } = await asked(`write ${path}, part ${PartNumber}`, () => client.send(part));
    parts.push({ PartNumber, ETag });
  };
  const discard = async (): Promise<void> => {
    const abort = new sdk.AbortMultipartUploadCommand({ Bucket, Key, UploadId });
    // What cannot be taken back now goes with the step.
    await client.send(abort).catch(() => undefined);
  };
  try {
    await write(0, first, pieceBytes);
  } catch (error) {
    await discard();
    throw error;
  }
  const complete = async (): Promise<void> => {
    const Parts = parts.toSorted((a, b) => a.PartNumber - b.PartNumber);
    const request = { Bucket, Key, UploadId, MultipartUpload: { Parts } };
    await client.send(new sdk.CompleteMultipartUploadCommand(request));
  };
  return newFile(complete, path, { write, discard });
}

function newFile(
  complete: () => Promise<void>,
  path: string,
  multipart?: Pick<NewFile, "write"> & { readonly discard: () => Promise<void> },
): NewFile {
  let isThere = false;
  return {
    async write(index, piece, length) {
      invariant(multipart, `${path} has one piece, received piece ${index}`);
      await multipart.write(index, piece, length);
    },
    async finish() {
      await failpoint("worker.checkpoint.synced");
      await asked(`write ${path}`, complete);
      isThere = true;
      await failpoint("worker.checkpoint.renamed");
    },
    async close() {
      if (!isThere) await multipart?.discard();
    },
  };
}

async function asked<T>(doing: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw s3Error(doing, error);
  }
}
