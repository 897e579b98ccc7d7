/**
 * Reduce-scatter of gradients and all-reduce of small vectors, in the order of the fixed tree over logical ranks.
 *
 * Every worker adds up what lies below its own subtree roots, sends each peer that peer's slice of every root, and adds
 * the roots of all workers on its own slice. Each node's value is rounded to the exchange dtype, whether it travels or
 * not: so the result is the same for every number of workers.
 */
import {
  invariant,
  type Layout,
  PaddockError,
  type Range,
  ranksOf,
  shardOf,
  subtreeRoots,
  sumTree,
  type TreeNode,
  type Unit,
} from "@paddock/contract";
import { type FlatMath, flattenGradients, type UnitTensors } from "@paddock/model";
import type { Membership } from "../engine/calls.js";
import { type Bucket, backwardOrder, bucketsOf } from "./buckets.js";
import type { Codec } from "./codec.js";

export interface ReduceDeps {
  readonly layout: Layout;
  readonly logicalRanks: number;
  readonly membership: Membership;
  readonly codec: Codec;
  readonly flat: FlatMath;
  readonly send: (key: string, to: number, payload: Uint8Array) => Promise<void>;
  readonly receive: (key: string, from: number) => Promise<Uint8Array>;
}

/** A bucket is sent as soon as this many values have come together. */
const bucketElements = 512 * 1024;

const nodeKey = (node: TreeNode): string => `${node.start}-${node.end}`;

interface RootValue {
  readonly node: TreeNode;
  readonly values: Float32Array;
}

export class Reducer {
  readonly #deps: ReduceDeps;
  readonly #ranks: Range;
  readonly #roots: readonly TreeNode[];
  readonly #buckets: readonly Bucket[];
  readonly #units: ReadonlyMap<string, Unit>;
  /** Leaves of units whose backward is under way, by unit, then rank. */
  readonly #leaves = new Map<string, Map<number, Float32Array>>();
  /** Roots of finished units, until their bucket is sent; then own slices only. */
  readonly #ready = new Map<string, RootValue[]>();
  readonly #sending: Promise<void>[] = [];
  readonly #sent = new Set<string>();

  constructor(deps: ReduceDeps) {
    this.#deps = deps;
    const { worker, workers } = deps.membership;
    this.#ranks = ranksOf(deps.logicalRanks, worker, workers);
    this.#roots = subtreeRoots(this.#ranks.start, this.#ranks.end, deps.logicalRanks);
    this.#buckets = bucketsOf(deps.layout, backwardOrder(deps.layout), bucketElements);
    this.#units = new Map(deps.layout.units.map((unit) => [unit.name, unit]));
  }

  /** Forgets an unfinished step. */
  reset(): void {
    this.#leaves.clear();
    this.#ready.clear();
    this.#sending.length = 0;
    this.#sent.clear();
  }

  /** Takes one local rank's gradient of a unit (and disposes its tensors), scaled by `scale` before it is rounded. */
  async emit(unitName: string, rank: number, grads: UnitTensors, scale: number): Promise<void> {
    const { codec, flat, membership } = this.#deps;
    const unit = this.#unit(unitName);
    const leaf = await flattenGradients(unit, grads);
    for (const tensor of Object.values(grads)) tensor.dispose();
    if (scale !== 1) flat.scale(leaf, scale);
    codec.round(leaf);
    const leaves = this.#leaves.get(unitName) ?? new Map<number, Float32Array>();
    this.#leaves.set(unitName, leaves);
    invariant(!leaves.has(rank), `rank ${rank} emitted ${unitName} twice`);
    leaves.set(rank, leaf);
    if (leaves.size < this.#ranks.end - this.#ranks.start) return;
    this.#leaves.delete(unitName);
    this.#ready.set(
      unitName,
      this.#roots.map((node) => ({
        node,
        values: sumTree(
          node,
          (n) => (n.end - n.start === 1 ? leaves.get(n.start) : undefined),
          this.#add,
        ),
      })),
    );
    if (membership.workers > 1) this.#sendFinishedBuckets();
  }

  /**
   * This worker's shard of the reduced gradient of every unit: tree sum over all logical ranks times `factor`.
   * Waits for the peers.
   */
  async collect(factor: number): Promise<Map<string, Float32Array>> {
    const { membership, flat, codec, logicalRanks } = this.#deps;
    const { worker, workers } = membership;
    invariant(
      this.#leaves.size === 0,
      `backward left ${[...this.#leaves.keys()].join(", ")} unfinished`,
    );
    const reduced = new Map<string, Float32Array>();
    for (const bucket of this.#buckets) {
      const nodes = bucket.units.map((unit) => this.#ownNodes(unit));
      for (let peer = 0; peer < workers; peer++) {
        if (peer === worker) continue;
        const payload = await this.#deps.receive(bucket.key, peer);
        this.#decodePeer(bucket, peer, payload, nodes);
      }
      bucket.units.forEach((unit, i) => {
        const known = nodes[i] as Map<string, Float32Array>;
        const values = sumTree(
          { start: 0, end: logicalRanks },
          (node) => known.get(nodeKey(node)),
          this.#add,
        );
        if (factor !== 1) flat.scale(values, factor);
        reduced.set(unit.name, values);
        this.#ready.delete(unit.name);
      });
    }
    await Promise.all(this.#sending);
    this.#sending.length = 0;
    this.#sent.clear();
    invariant(codec.bytesPerValue > 0 && this.#ready.size === 0, "every unit was reduced");
    return reduced;
  }

  /** The tree sum over ALL logical ranks of fp32 vectors, given those of the local ranks in order. */
  async sum(key: string, perLocalRank: readonly Float32Array[]): Promise<Float32Array> {
    const { membership, logicalRanks } = this.#deps;
    const { worker, workers } = membership;
    const local = ranksOf(logicalRanks, worker, workers);
    invariant(perLocalRank.length === local.end - local.start, `${key}: one vector per local rank`);
    const known = new Map<string, Float32Array>();
    for (const node of this.#roots) {
      const leafOf = (n: TreeNode): Float32Array | undefined =>
        n.end - n.start === 1 ? perLocalRank[n.start - local.start]?.slice() : undefined;
      known.set(nodeKey(node), sumTree(node, leafOf, this.#addExact));
    }
    if (workers > 1) {
      const length = perLocalRank[0]?.length ?? 0;
      const payload = new Float32Array(new SharedArrayBuffer(length * this.#roots.length * 4));
      this.#roots.forEach((node, i) => {
        payload.set(known.get(nodeKey(node)) as Float32Array, i * length);
      });
      const bytes = new Uint8Array(payload.buffer);
      const peers = [...Array(workers).keys()].filter((peer) => peer !== worker);
      const sends = peers.map((peer) => this.#deps.send(key, peer, bytes));
      for (const peer of peers)
        this.#readSum(key, peer, length, await this.#deps.receive(key, peer), known);
      await Promise.all(sends);
    }
    return sumTree(
      { start: 0, end: logicalRanks },
      (node) => known.get(nodeKey(node)),
      this.#addExact,
    );
  }

  #readSum(
    key: string,
    peer: number,
    length: number,
    bytes: Uint8Array,
    known: Map<string, Float32Array>,
  ): void {
    const roots = this.#rootsOf(peer);
    expectBytes(`${key} from worker ${peer}`, roots.length * length * 4, bytes.byteLength);
    const copy = new Uint8Array(bytes);
    roots.forEach((node, i) => {
      known.set(nodeKey(node), new Float32Array(copy.buffer, i * length * 4, length));
    });
  }

  #sendFinishedBuckets(): void {
    for (const bucket of this.#buckets) {
      if (this.#sent.has(bucket.key) || !bucket.units.every((unit) => this.#ready.has(unit.name)))
        continue;
      this.#sent.add(bucket.key);
      for (let peer = 0; peer < this.#deps.membership.workers; peer++) {
        if (peer === this.#deps.membership.worker) continue;
        const sending = this.#deps.send(bucket.key, peer, this.#encodeFor(bucket, peer));
        // Its rejection is reported by collect.
        sending.catch(() => undefined);
        this.#sending.push(sending);
      }
      for (const unit of bucket.units) this.#keepOwnSlice(unit);
    }
  }

  /** A peer's slices: unit by unit, root by root, in the exchange dtype. */
  #encodeFor(bucket: Bucket, peer: number): Uint8Array {
    const { codec, membership } = this.#deps;
    const pieces: Uint8Array[] = [];
    for (const unit of bucket.units) {
      const { start, end } = shardOf(unit.elements, peer, membership.workers);
      for (const root of this.#ready.get(unit.name) ?? []) {
        pieces.push(codec.encode(root.values.subarray(start, end)));
      }
    }
    const total = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
    const payload = new Uint8Array(new SharedArrayBuffer(total));
    let offset = 0;
    for (const piece of pieces) {
      payload.set(piece, offset);
      offset += piece.byteLength;
    }
    return payload;
  }

  #keepOwnSlice(unit: Unit): void {
    const { worker, workers } = this.#deps.membership;
    const { start, end } = shardOf(unit.elements, worker, workers);
    const roots = this.#ready.get(unit.name) ?? [];
    this.#ready.set(
      unit.name,
      roots.map(({ node, values }) => ({ node, values: values.slice(start, end) })),
    );
  }

  #ownNodes(unit: Unit): Map<string, Float32Array> {
    const roots = this.#ready.get(unit.name);
    invariant(roots, `no gradient of ${unit.name}`);
    return new Map(roots.map(({ node, values }) => [nodeKey(node), values]));
  }

  #decodePeer(
    bucket: Bucket,
    peer: number,
    payload: Uint8Array,
    nodes: readonly Map<string, Float32Array>[],
  ): void {
    const { codec, membership } = this.#deps;
    const roots = this.#rootsOf(peer);
    let offset = 0;
    const shards = bucket.units.map((unit) =>
      shardOf(unit.elements, membership.worker, membership.workers),
    );
    const expected = shards.reduce((sum, { start, end }) => sum + (end - start), 0);
    expectBytes(
      `${bucket.key} from worker ${peer}`,
      expected * roots.length * codec.bytesPerValue,
      payload.byteLength,
    );
    bucket.units.forEach((_, i) => {
      const { start, end } = shards[i] as Range;
      for (const node of roots) {
        const bytes = (end - start) * codec.bytesPerValue;
        const values = new Float32Array(end - start);
        codec.decode(payload.subarray(offset, offset + bytes), values);
        (nodes[i] as Map<string, Float32Array>).set(nodeKey(node), values);
        offset += bytes;
      }
    });
  }

  #rootsOf(worker: number): TreeNode[] {
    const { logicalRanks, membership } = this.#deps;
    const { start, end } = ranksOf(logicalRanks, worker, membership.workers);
    return subtreeRoots(start, end, logicalRanks);
  }

  readonly #add = (left: Float32Array, right: Float32Array): Float32Array => {
    this.#deps.flat.add(left, right);
    this.#deps.codec.round(left);
    return left;
  };

  readonly #addExact = (left: Float32Array, right: Float32Array): Float32Array => {
    this.#deps.flat.add(left, right);
    return left;
  };

  #unit(name: string): Unit {
    const unit = this.#units.get(name);
    if (!unit) throw new PaddockError("internal", `no unit "${name}" in the layout`);
    return unit;
  }
}

function expectBytes(what: string, expected: number, received: number): void {
  if (expected === received) return;
  throw new PaddockError(
    "exchange-corrupt",
    `${what}: expected ${expected} bytes, received ${received}; was the peer built from another commit?`,
  );
}
