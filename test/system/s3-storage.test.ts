/** Checkpoints in S3-compatible storage, against a real server: what is stored, what is left behind, what is found out. */
import { randomBytes } from "node:crypto";
import { readdirSync, truncateSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { inspect } from "node:util";
import {
  type CheckpointStore,
  PieceMemory,
  pieceBytes,
} from "@paddock/service-kit/checkpoint-store";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { scratch } from "../support/paddock.js";
import { freePort } from "../support/redis.js";
import { startTestS3, type TestS3, whyNoS3 } from "../support/s3.js";

const folder = scratch();
afterAll(folder.remove);

/** The store as a process with this environment has it. */
async function storeIn(
  environment: Readonly<Record<string, string | undefined>>,
): Promise<CheckpointStore> {
  vi.resetModules();
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
  const { storeOf } = await import("@paddock/service-kit/checkpoint-store");
  return storeOf("s3://any");
}

/** Writes a file of random bytes; returns them. */
async function put(store: CheckpointStore, path: string, bytes: number): Promise<Buffer> {
  const { memory, content } = randomPieces(bytes);
  const file = await store.create(path, { bytes, generation: 1 }, memory.piece(0));
  try {
    const pieces = Math.ceil(bytes / pieceBytes);
    // Backwards: parts may come in any order.
    for (let index = pieces - 1; index > 0; index--) {
      const length = Math.min(pieceBytes, bytes - index * pieceBytes);
      await file.write(index, memory.piece(index), length);
    }
    await file.finish();
  } finally {
    await file.close();
  }
  return content;
}

function randomPieces(bytes: number): { memory: PieceMemory; content: Buffer } {
  const content = randomBytes(bytes);
  const memory = new PieceMemory();
  memory.reserve(Math.ceil(bytes / pieceBytes));
  for (let at = 0; at < bytes; at += pieceBytes) content.copy(memory.piece(at / pieceBytes), 0, at);
  return { memory, content };
}

async function get(store: CheckpointStore, path: string): Promise<Buffer> {
  const file = await store.open(path);
  const content = Buffer.alloc(file.bytes);
  expect(await file.read(content, 0)).toBe(file.bytes);
  await file.close();
  return content;
}

const large = 2 * pieceBytes + 12_345;

describe.skipIf(whyNoS3)(`S3 storage ${whyNoS3 ?? ""}`, () => {
  let s3: TestS3;
  let store: CheckpointStore;
  const root = "s3://checkpoints/runs/a";
  beforeAll(async () => {
    s3 = await startTestS3(folder.path);
  });
  afterAll(() => s3.stop());
  beforeEach(async () => {
    store = await storeIn(s3.environment);
  });
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  test("what is written in pieces, in any order, is read in pieces and anywhere", async () => {
    for (const bytes of [1000, pieceBytes, large]) {
      const path = `${root}/4/shard-${bytes}`;
      const content = await put(store, path, bytes);
      expect((await get(store, path)).equals(content)).toBe(true);
      const file = await store.open(path);
      const pieces = await file.pieces(bytes, undefined);
      const last = Math.ceil(bytes / pieceBytes) - 1;
      const rest = bytes - last * pieceBytes;
      const piece = await pieces.read(last, Buffer.alloc(pieceBytes), rest);
      expect(piece.equals(content.subarray(last * pieceBytes))).toBe(true);
      expect(await file.read(Buffer.alloc(10), bytes)).toBe(0);
      expect(await file.read(Buffer.alloc(10), bytes - 3)).toBe(3);
    }
    expect(await store.sizes(`${root}/4`)).toEqual(
      new Map([1000, pieceBytes, large].map((bytes) => [`shard-${bytes}`, bytes])),
    );
    await store.writeText(`${root}/12/manifest.json`, "{}");
    expect(await store.readText(`${root}/12/manifest.json`, 2)).toBe("{}");
    await expect(store.readText(`${root}/12/manifest.json`, 1)).rejects.toMatchObject({
      code: "checkpoint-corrupt",
    });
    expect(await store.steps(root)).toEqual([12, 4]);
    expect(await store.steps("s3://checkpoints/runs/b")).toEqual([]);
    await store.remove(`${root}/4`);
    expect(await store.steps(root)).toEqual([12]);
    expect((await store.sizes(`${root}/4`)).size).toBe(0);
    await expect(store.open(`${root}/4/shard-1000`)).rejects.toMatchObject({ code: "not-found" });
  });

  test("an upload that does not get to its end leaves nothing; one whose writer is gone is taken back later", async () => {
    const { memory } = randomPieces(large);
    const begun = (name: string) =>
      store.create(`${root}/20/${name}`, { bytes: large, generation: 1 }, memory.piece(0));
    const failed = await begun("shard-0-of-2");
    await failed.write(1, memory.piece(1), pieceBytes);
    expect(await store.steps(root)).toContain(20);
    await failed.close();
    expect((await store.sizes(`${root}/20`)).size).toBe(0);
    await expect(failed.write(2, memory.piece(2), 12_345)).rejects.toThrow(/NoSuchUpload/);

    const lost = await begun("shard-0-of-2");
    const replica = await begun("replica-1-of-2");
    await store.removeUnfinished(`${root}/20`, (name) => name.startsWith("shard-"));
    await expect(lost.write(1, memory.piece(1), pieceBytes)).rejects.toMatchObject({
      code: "disk-unavailable",
      message: expect.stringMatching(/write s3:.*part 2, received NoSuchUpload/),
    });
    await replica.write(1, memory.piece(1), pieceBytes);
    await store.remove(`${root}/20`);
    await expect(replica.write(2, memory.piece(2), 12_345)).rejects.toThrow(/NoSuchUpload/);
  });

  test("a server that goes away in the middle costs the upload, and no half of it is ever seen", async () => {
    const { memory } = randomPieces(large);
    const path = `${root}/30/shard-0-of-1`;
    const before = await put(store, path, 1000);
    const file = await store.create(path, { bytes: large, generation: 2 }, memory.piece(0));
    await s3.stop();
    try {
      await expect(file.write(1, memory.piece(1), pieceBytes)).rejects.toMatchObject({
        code: "disk-unavailable",
        message: expect.stringMatching(/expected to write s3:.*ECONN.*AWS_ENDPOINT_URL_S3/),
      });
      await expect(store.open(path)).rejects.toMatchObject({ code: "disk-unavailable" });
      await expect(store.steps(root)).rejects.toMatchObject({ code: "disk-unavailable" });
    } finally {
      await s3.start();
    }
    await expect(file.finish()).rejects.toMatchObject({ code: "disk-unavailable" });
    await file.close();
    expect((await get(store, path)).equals(before)).toBe(true);
  });

  test("an answer that breaks off is asked for again from where it ended, three times at most", async () => {
    const path = `${root}/40/shard-0-of-1`;
    const content = await put(store, path, large);
    for (const [cuts, isRead] of [
      [2, true],
      [3, false],
    ] as const) {
      const proxy = await cuttingProxy(s3.port, 3_000_000, cuts);
      try {
        const endpoint = { AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${proxy.port}` };
        const through = await storeIn({ ...s3.environment, ...endpoint });
        const read = get(through, path);
        if (isRead) expect((await read).equals(content)).toBe(true);
        else await expect(read).rejects.toMatchObject({ code: "disk-unavailable" });
        expect(proxy.cuts()).toBe(cuts);
      } finally {
        await proxy.close();
      }
    }
  });

  test("an object that is cut short while it is read is corrupt", async () => {
    const path = `${root}/50/shard-0-of-1`;
    await put(store, path, large);
    const file = await store.open(path);
    truncateSync(join(s3.folder, "runs/a/50/shard-0-of-1"), large - 1);
    await expect(file.read(Buffer.alloc(large), 0)).rejects.toMatchObject({
      code: "checkpoint-corrupt",
      message: expect.stringMatching(/expected \d+ bytes at 0, received \d+/),
    });
  });

  test("what is refused says where, what was expected, what came, and the remedy; and no secret", async () => {
    const cases = [
      ["s3://nobucket/a", {}, /NoSuchBucket.*make the bucket/],
      [
        root,
        { AWS_SECRET_ACCESS_KEY: "wrongsecret" },
        /SignatureDoesNotMatch.*\(HTTP 403\); check the AWS cred/,
      ],
      [root, { AWS_ACCESS_KEY_ID: "otherkeyid" }, /HTTP 403\); check the AWS credentials/],
      [
        root,
        { AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${await freePort()}` },
        /ECONNREFUSED.*check the network/,
      ],
      [root, { AWS_REGION: undefined }, /Region is missing.*set AWS_REGION/],
    ] as const;
    for (const [place, environment, what] of cases) {
      const token = { AWS_SESSION_TOKEN: "testsessiontoken" };
      const other = await storeIn({ ...s3.environment, ...token, ...environment });
      const path = `${place}/4/shard`;
      const { memory } = randomPieces(large);
      for (const [doing, refused] of [
        ["write to", () => other.prepare(place)],
        ["list", () => other.steps(place)],
        ["write", () => other.writeText(`${place}/4/manifest.json`, "{}")],
        ["write", () => other.create(path, { bytes: large, generation: 1 }, memory.piece(0))],
      ] as const) {
        const error = await refused().then(
          () => undefined,
          (thrown: unknown) => thrown as Error,
        );
        expect(error).toMatchObject({ code: "disk-unavailable" });
        expect(error?.message).toMatch(what);
        expect(error?.message).toMatch(new RegExp(`^expected to ${doing} ${place}`));
        const everything = inspect(error, { depth: 20, showHidden: true });
        expect(everything).not.toMatch(
          /testsessiontoken|wrongsecret|testsecretkey|testkeyid|otherkeyid/,
        );
      }
      vi.unstubAllEnvs();
    }
  });

  test("whether a place can be written is found out without a trace", async () => {
    const before = readdirSync(s3.folder);
    await store.prepare("s3://checkpoints");
    await store.prepare("s3://checkpoints/new/place");
    expect(readdirSync(s3.folder)).toEqual(before);
  });
});

/** Breaks the first connections off after so many bytes of answers. */
async function cuttingProxy(port: number, bytes: number, most: number) {
  let cuts = 0;
  const server: Server = createServer((socket) => {
    const upstream = connect(port, "127.0.0.1");
    let passed = 0;
    for (const end of [socket, upstream]) {
      end.on("error", () => undefined);
      end.on("close", () => {
        socket.destroy();
        upstream.destroy();
      });
    }
    socket.pipe(upstream);
    upstream.on("data", (chunk: Buffer) => {
      passed += chunk.length;
      socket.write(chunk);
      if (passed < bytes || cuts === most) return;
      cuts += 1;
      upstream.destroy();
    });
  });
  const sockets: Socket[] = [];
  server.on("connection", (socket) => sockets.push(socket));
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  return {
    port: typeof address === "object" ? address?.port : undefined,
    cuts: () => cuts,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
