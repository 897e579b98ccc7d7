/** Objects read in ranges, each in a request of its own. */
import type { Readable } from "node:stream";
import { PaddockError } from "@paddock/contract";
import { s3NameOf } from "./location.js";
import { pieceBytes } from "./piece-memory.js";
import type { S3 } from "./s3-client.js";
import { corruptObject, isStatus, s3Error } from "./s3-errors.js";
import type { StoredFile } from "./store.js";

/** Answers that break off in the middle are asked for again where they ended; what was not answered the client asks for again itself. */
const mostCuts = 3;

export async function openObject({ sdk, client }: S3, path: string): Promise<StoredFile> {
  const { bucket: Bucket, key: Key } = s3NameOf(path);
  const head = await client.send(new sdk.HeadObjectCommand({ Bucket, Key })).catch((thrown) => {
    if (isStatus(thrown, 404)) throw new PaddockError("not-found", "no file");
    throw s3Error(`read ${path}`, thrown);
  });
  const { ContentLength: bytes = 0, ETag: IfMatch } = head;

  /** One answer, as far as it comes: where it ended, and why if that is not `end`. */
  async function readSome(target: Uint8Array, first: number, end: number) {
    const Range = `bytes=${first}-${end - 1}`;
    const get = new sdk.GetObjectCommand({ Bucket, Key, Range, IfMatch });
    const answer = await client.send(get).catch((thrown) => {
      const isOther = isStatus(thrown, 404, 412, 416);
      throw isOther ? replaced(path) : s3Error(`read ${path}`, thrown);
    });
    const body = answer.Body as Readable;
    if (answer.ContentLength !== end - first) {
      body.destroy();
      throw corruptObject(path, `${end - first} bytes at ${first}`, String(answer.ContentLength));
    }
    let at = first;
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        target.set(chunk, at - first);
        at += chunk.length;
      }
      return { at, cutBy: new Error("the answer ended early") };
    } catch (cutBy) {
      return { at, cutBy };
    }
  }

  async function read(target: Uint8Array, position: number): Promise<number> {
    const end = Math.min(position + target.byteLength, bytes);
    let at = position;
    for (let cuts = 0; at < end; ) {
      const answer = await readSome(target.subarray(at - position), at, end);
      at = answer.at;
      if (at === end) break;
      cuts += 1;
      if (cuts === mostCuts) throw s3Error(`read ${path}`, answer.cutBy);
    }
    return Math.max(0, end - position);
  }

  return {
    bytes,
    pieces: async () => ({
      async read(index, buffer, length) {
        const done = await read(buffer.subarray(0, length), index * pieceBytes);
        return buffer.subarray(0, done);
      },
      close: async () => undefined,
    }),
    read,
    close: async () => undefined,
  };
}

function replaced(path: string): PaddockError {
  return corruptObject(path, "the object that was opened", "another one, or none");
}
