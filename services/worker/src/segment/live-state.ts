/**
 * State from worker to worker when the members change: each takes the ranges of its new shards from those who hold them, itself
 * included. No disk, and no more bytes than the new cut needs.
 */
import { intersect, PaddockError, type RunSpec, shardOf } from "@paddock/contract";
import { type Centers, initialCenters } from "@paddock/model";
import type { LiveSource } from "@paddock/proto";
import type { TlsOptions } from "@paddock/service-kit";
import { openPeer, type Peer } from "../peer/peer-service.js";
import { keptShards, type ShardRange, type Shards, viewOfShards } from "./shards.js";

export interface LiveLoad {
  /** To be filled. */
  readonly shards: Shards;
  readonly source: LiveSource;
  /** Committed steps that the state has. */
  readonly step: number;
  /** What this worker holds of the source's generation; undefined: nothing. */
  readonly own: { readonly shards: Shards; readonly centers: Centers } | undefined;
  /** Longest wait for one range. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Our certificate, where peers have one too. */
  readonly tls: TlsOptions | undefined;
  /** Called after each unit: this is progress. */
  readonly onProgress: () => void;
}

/** Ranges that are asked for at once. */
const lanes = 8;

/** Fills the shards and returns the centres. Rejects with what `Peer.fetch` throws: then the generation must be replaced. */
export async function loadLive(load: LiveLoad): Promise<Centers> {
  const peers = new Peers(load);
  try {
    await fill(load, peers);
    return load.own?.centers ?? (await fetchCenters(load, peers));
  } finally {
    peers.close();
  }
}

async function fill(load: LiveLoad, peers: Peers): Promise<void> {
  const tasks = tasksOf(load, peers).values();
  const work = async (): Promise<void> => {
    for (const task of tasks) {
      await task();
      load.onProgress();
    }
  };
  await Promise.all(Array.from({ length: lanes }, work));
}

function tasksOf(load: LiveLoad, peers: Peers): (() => Promise<void>)[] {
  const tasks: (() => Promise<void>)[] = [];
  for (const { membership, state } of keptShards(load.shards)) {
    for (const { kind, units } of load.shards.parts) {
      for (const unit of units) {
        const mine = shardOf(unit.elements, membership.worker, membership.workers);
        const shard = state[kind][unit.name] as Float32Array;
        for (let holder = 0; holder < load.source.workers; holder++) {
          const theirs = shardOf(unit.elements, holder, load.source.workers);
          const common = intersect(mine, theirs);
          if (!common) continue;
          const range = { kind, unit: unit.name, ...common };
          const target = shard.subarray(common.start - mine.start, common.end - mine.start);
          tasks.push(async () => target.set(await readRange(load, peers, holder, range)));
        }
      }
    }
  }
  return tasks;
}

async function readRange(
  load: LiveLoad,
  peers: Peers,
  holder: number,
  range: ShardRange,
): Promise<Float32Array> {
  const here = load.own && viewOfShards(load.own.shards, range);
  return here ?? (await peers.fetch(holder, range));
}

/** Who holds the source, one connection to each. */
class Peers {
  readonly #load: LiveLoad;
  readonly #open = new Map<string, Peer>();

  constructor(load: LiveLoad) {
    this.#load = load;
  }

  /** A range of what worker `holder` of the source's generation had. */
  async fetch(holder: number, range: ShardRange): Promise<Float32Array> {
    const { source, step, timeoutMs, signal, tls } = this.#load;
    const found = source.holders.find(({ worker }) => worker === holder);
    if (!found) {
      throw new PaddockError(
        "internal",
        `the assignment names nobody who holds the shards of worker ${holder} of generation ${source.generation}`,
      );
    }
    const { peerAddress } = found;
    const peer = this.#open.get(peerAddress) ?? openPeer(peerAddress, tls);
    this.#open.set(peerAddress, peer);
    const request = { generation: source.generation, step, ...range };
    return await peer.fetch(request, { timeoutMs, signal });
  }

  close(): void {
    for (const peer of this.#open.values()) peer.close();
  }
}

/** The centres are the same on all workers, so any holder's will do. */
async function fetchCenters(load: LiveLoad, peers: Peers): Promise<Centers> {
  const { spec } = load.shards;
  const holder = load.source.holders[0]?.worker ?? 0;
  const range = { kind: "centers", unit: "", start: 0, end: packedLength(spec) };
  return unpackCenters(spec, await peers.fetch(holder, range));
}

const names = ["dino", "ibot", "pendingDino", "pendingIbot"] as const;

/** One vector for all centres: which of them there are, then their values, zeros for what there is not. */
function packCenters(spec: RunSpec, centers: Centers): Float32Array {
  const packed = new Float32Array(packedLength(spec));
  let offset = names.length;
  for (const [i, name] of names.entries()) {
    const values = centers[name];
    if (values) {
      packed[i] = 1;
      packed.set(values, offset);
    }
    offset += lengthOf(spec, name);
  }
  return packed;
}

function unpackCenters(spec: RunSpec, packed: Float32Array): Centers {
  let offset = names.length;
  const entries = names.map((name, i) => {
    const start = offset;
    offset += lengthOf(spec, name);
    return [name, packed[i] === 1 ? packed.slice(start, offset) : null] as const;
  });
  return Object.fromEntries(entries) as unknown as Centers;
}

function packedLength(spec: RunSpec): number {
  return names.reduce<number>((sum, name) => sum + lengthOf(spec, name), names.length);
}

function lengthOf(spec: RunSpec, name: (typeof names)[number]): number {
  const { dino, ibot } = initialCenters(spec);
  return (name === "dino" || name === "pendingDino" ? dino : ibot)?.length ?? 0;
}

/** What a peer may read of a holding: a range of its shards, or the packed centres. */
export function readHolding(
  held: { readonly shards: Shards; readonly centers: Centers },
  range: ShardRange,
): Float32Array | undefined {
  if (range.kind !== "centers") return viewOfShards(held.shards, range);
  return packCenters(held.shards.spec, held.centers).subarray(range.start, range.end);
}
