import { crc32c } from "@node-rs/crc32";
import { PeerService, type ShardChunk, type ShardRequest } from "@paddock/proto";
import { grpcClient, serve, startGrpcServer } from "@paddock/service-kit";
import { afterEach, expect, test } from "vitest";
import { openPeer, type Peer, type ReadShard, startPeerService } from "./peer-service.js";

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

const settings = { timeoutMs: 5000 };
const held = new Float32Array(new SharedArrayBuffer(4 * 700_000)).map((_, i) => i / 3);
const request = (changes: Partial<ShardRequest> = {}): ShardRequest => ({
  generation: 4,
  kind: "teacher",
  unit: "block.0",
  start: 1000,
  end: 701_000,
  step: 0,
  ...changes,
});

/** Holds elements [1000, 701000) of one unit in generation 4. */
const readHeld: ReadShard = ({ generation, kind, unit, start, end }) => {
  if (generation !== 4 || kind !== "teacher" || unit !== "block.0") return undefined;
  return held.subarray(start - 1000, end - 1000);
};

async function fetchShard(address: string, ...[asked, how]: Parameters<Peer["fetch"]>) {
  const peer = openPeer(address, undefined);
  closers.push(async () => peer.close());
  return await peer.fetch(asked, how);
}

async function startPeer(): Promise<string> {
  const peer = await startPeerService("127.0.0.1", readHeld);
  closers.push(() => peer.close());
  return peer.address;
}

/** A peer that sends these chunks, whatever is asked. */
async function startBadPeer(chunks: readonly ShardChunk[]): Promise<string> {
  const streamShard = async function* () {
    yield* chunks;
  };
  const services = [serve(PeerService, { streamShard })];
  const server = await startGrpcServer({ host: "127.0.0.1", port: 0, services });
  closers.push(() => server.close());
  return server.address;
}

test("a range comes as it is held: of many chunks, inside one, at the end, and empty", async () => {
  const address = await startPeer();
  for (const [start, end] of [
    [1000, 701_000],
    [263_143, 263_146],
    [700_999, 701_000],
    [5000, 5000],
  ] as const) {
    const values = await fetchShard(address, request({ start, end }), settings);
    const expected = Float32Array.from(held.subarray(start - 1000, end - 1000));
    expect(Buffer.compare(Buffer.from(values.buffer), Buffer.from(expected.buffer))).toBe(0);
  }
});

test("no chunk is larger than 1 MiB", async () => {
  const sizes: number[] = [];
  const peer = await startPeerService("127.0.0.1", readHeld);
  closers.push(() => peer.close());
  const client = grpcClient(peer.address, PeerService);
  for await (const { data } of client.streamShard(request(), settings)) sizes.push(data.length);
  client.close();
  expect(sizes).toEqual([2 ** 20, 2 ** 20, 4 * 700_000 - 2 * 2 ** 20]);
});

test.each([
  ["another generation", { generation: 3 }],
  ["a unit that it does not hold", { unit: "block.1" }],
  ["elements beyond its shard", { end: 701_001 }],
])("a peer refuses %s as stale", async (_what, changes) => {
  const address = await startPeer();
  await expect(fetchShard(address, request(changes), settings)).rejects.toMatchObject({
    code: "stale-generation",
    message: expect.stringMatching(/expected to hold teacher\/block\.[01] \[1000, 70100[01]\)/),
  });
});

test("damaged, missing, surplus and misplaced chunks are found", async () => {
  const chunk = (offset: number, values: number[]): ShardChunk => {
    const data = Buffer.from(Float32Array.from(values).buffer);
    return { offset, data, crc32c: crc32c(data) };
  };
  const good = [chunk(10, [1, 2]), chunk(12, [3])];
  const range = request({ start: 10, end: 13 });
  const fetched = async (chunks: readonly ShardChunk[]) =>
    await fetchShard(await startBadPeer(chunks), range, settings);
  expect(await fetched(good)).toEqual(Float32Array.of(1, 2, 3));
  const flipped = { ...chunk(12, [3]), data: chunk(12, [5]).data };
  await expect(fetched([chunk(10, [1, 2]), flipped])).rejects.toThrow(/expected crc32c \d+/);
  await expect(fetched(good.slice(0, 1))).rejects.toThrow(/expected 12 bytes, received 8/);
  await expect(fetched([...good, chunk(13, [4])])).rejects.toThrow(/at most 0 bytes at 12/);
  await expect(fetched(good.toReversed())).rejects.toThrow(/at 0, received 4 at 8/);
  await expect(fetched([])).rejects.toMatchObject({ code: "exchange-corrupt" });
});

test("a peer that is gone or silent is lost, and an abort ends the wait with its reason", async () => {
  await expect(fetchShard("127.0.0.1:1", request(), settings)).rejects.toMatchObject({
    code: "worker-lost",
  });
  const streamShard = async function* (_: ShardRequest, { signal }: { signal: AbortSignal }) {
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    yield* [];
  };
  const services = [serve(PeerService, { streamShard })];
  const silent = await startGrpcServer({ host: "127.0.0.1", port: 0, services });
  closers.push(() => silent.close());
  await expect(fetchShard(silent.address, request(), { timeoutMs: 100 })).rejects.toMatchObject({
    code: "worker-lost",
  });
  const abort = new AbortController();
  const fetching = fetchShard(silent.address, request(), { timeoutMs: 5000, signal: abort.signal });
  setTimeout(() => abort.abort(new Error("drained")), 50);
  await expect(fetching).rejects.toThrow("drained");
});
