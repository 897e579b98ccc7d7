import { parseRunSpec, shardOf } from "@paddock/contract";
import { type Centers, initialUnit } from "@paddock/model";
import { afterEach, expect, test } from "vitest";
import { startPeerService } from "../peer/peer-service.js";
import { loadLive, readHolding } from "./live-state.js";
import { allocateShards, type Shards, viewOfShards } from "./shards.js";

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

const spec = parseRunSpec({
  steps: 4,
  batchPerRank: 2,
  logicalRanks: 4,
  data: { path: "x" },
  model: { arch: "custom", width: 16, depth: 2, heads: 2, patchSize: 4 },
  crops: {
    global: { size: 16, scale: [0.4, 1] },
    local: { size: 8, scale: [0.1, 0.4] },
    localCount: 2,
  },
  heads: { dino: { prototypes: 24, hidden: 16, bottleneck: 8 } },
  loss: { centering: "softmax", gram: { teacher: "frozen" } },
});
const centers: Centers = {
  dino: new Float32Array(24).fill(0.5),
  ibot: new Float32Array(24).fill(0.25),
  pendingDino: new Float32Array(24).fill(3),
  pendingIbot: null,
};
const step = 3;

/** Shards whose values say where they belong: kind, unit and element. */
function filled(workers: number, worker: number, shadow: number): Shards {
  const shards = allocateShards(spec, { generation: workers, worker, workers }, shadow);
  shards.parts.forEach(({ kind, units }, k) => {
    for (const unit of units) {
      const whole = initialUnit(spec, unit).map((value, i) => value + k + i / 7);
      forEachOwner(workers, (owner) => {
        const range = shardOf(unit.elements, owner, workers);
        viewOfShards(shards, { kind, unit: unit.name, ...range })?.set(
          whole.subarray(range.start, range.end),
        );
      });
    }
  });
  return shards;
}

function forEachOwner(workers: number, use: (owner: number) => void): void {
  for (let owner = 0; owner < workers; owner++) use(owner);
}

async function startHolder(shards: Shards, mayRead = true): Promise<string> {
  const held = { shards, centers };
  const { generation } = shards.membership;
  const peer = await startPeerService("127.0.0.1", (request) =>
    mayRead && request.generation === generation && request.step === step
      ? readHolding(held, request)
      : undefined,
  );
  closers.push(() => peer.close());
  return peer.address;
}

const settings = {
  step,
  timeoutMs: 5000,
  tls: undefined,
  signal: new AbortController().signal,
  onProgress: () => undefined,
};

test.each([
  [1, 3],
  [3, 2],
  [2, 4],
  [3, 1],
])("from %i to %i workers, each shard comes from those who hold it", async (from, to) => {
  const holders = await Promise.all(
    Array.from({ length: from }, async (_, worker) => {
      const peerAddress = await startHolder(filled(from, worker, -1));
      return { worker, workerName: "", peerAddress };
    }),
  );
  for (let worker = 0; worker < to; worker++) {
    const shadow = to > 1 ? (worker + to - 1) % to : -1;
    const expected = filled(to, worker, shadow);
    const shards = allocateShards(spec, { generation: to, worker, workers: to }, shadow);
    const source = { generation: from, workers: from, holders };
    const loaded = await loadLive({ ...settings, shards, source, own: undefined });
    expect(shards.state).toEqual(expected.state);
    expect(shards.shadow).toEqual(expected.shadow);
    expect(loaded).toEqual(centers);
  }
});

test("what this worker holds itself, its own or another's, is not asked for", async () => {
  const own = { shards: filled(2, 1, 0), centers };
  const shards = allocateShards(spec, { generation: 9, worker: 0, workers: 1 }, -1);
  const nobody = { worker: 0, workerName: "dead", peerAddress: "127.0.0.1:1" };
  const holders = [nobody, { ...nobody, worker: 1 }];
  await loadLive({ ...settings, shards, source: { generation: 2, workers: 2, holders }, own });
  expect(shards.state).toEqual(filled(1, 0, -1).state);
});

test("a holder that has moved on, and one that is not named, end the load", async () => {
  const peerAddress = await startHolder(filled(2, 0, -1), false);
  const shards = allocateShards(spec, { generation: 9, worker: 0, workers: 1 }, -1);
  const holders = [{ worker: 0, workerName: "", peerAddress }];
  const load = { ...settings, shards, own: undefined };
  await expect(
    loadLive({ ...load, source: { generation: 2, workers: 1, holders } }),
  ).rejects.toMatchObject({ code: "stale-generation" });
  await expect(
    loadLive({ ...load, source: { generation: 2, workers: 1, holders: [] } }),
  ).rejects.toThrow("names nobody");
});

test("all five kinds of state are moved", () => {
  expect(filled(1, 0, -1).parts.filter(({ units }) => units.length > 0)).toHaveLength(5);
});
