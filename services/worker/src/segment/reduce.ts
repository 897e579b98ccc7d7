/**
 * Reduce-scatter of gradients and all-reduce of small vectors, in the order of the fixed tree over logical ranks.
 *
 * Every worker adds up what lies below its own subtree roots, sends each peer that peer's slice of every root, and adds
 * the roots of all workers on its own slice. Each node's value is rounded to the exchange dtype, whether it travels or
 * not: so the result is the same for every number of workers.
 */
import {
  evenCuts,
  invariant,
  type Layout,
  PaddockError,
  type Range,
  type RankCuts,
  ranksOfCut,
  shardOf,
  subtreeRoots,
  sumTree,
  type TreeNode,
  type Unit,
} from "@paddock/contract";
import { flatGradient, type UnitTensors, type VectorSpace } from "@paddock/model";
import type { Membership } from "../engine/calls.js";
import { type Bucket, backwardOrder, bucketsOf } from "./buckets.js";
import type { Codec } from "./codec.js";
import type { OffenderWatch } from "./offender.js";

export interface ReduceDeps<V> {
  readonly layout: Layout;
  readonly logicalRanks: number;
  readonly membership: Membership;
  readonly codec: Codec<V>;
  readonly vectors: VectorSpace<V>;
  /** As `Exchange.allToAll`, for this step. */
  readonly allToAll: (
    key: string,
    outgoing: readonly Uint8Array[],
    expectedBytes: readonly number[],
  ) => Promise<Uint8Array[]>;
  /** Sees each rank's gradient of each unit before anything is added to it. */
  readonly watch?: Pick<OffenderWatch, "gradient">;
  /** Runs what waits for peers. */
  readonly waiting: <T>(work: () => Promise<T>) => Promise<T>;
}

/** A bucket is sent as soon as this many values have come together. */
const bucketElements = 512 * 1024;

/** What a worker sends itself. */
const nothing = new Uint8Array(0);

const nodeKey = (node: TreeNode): string => `${node.start}-${node.end}`;

interface RootValue<V> {
  readonly node: TreeNode;
  readonly values: V;
}

export class Reducer<V> {
  readonly #deps: ReduceDeps<V>;
  readonly #cuts: RankCuts;
  readonly #ranks: Range;
  readonly #roots: readonly TreeNode[];
  readonly #buckets: readonly Bucket[];
  readonly #units: ReadonlyMap<string, Unit>;
  /** Leaves of units whose backward is under way, by unit, then rank. */
  readonly #leaves = new Map<string, Map<number, V>>();
  /** Roots of finished units, until their bucket is sent; then own slices only. */
  readonly #ready = new Map<string, RootValue<V>[]>();
  /** What the peers send for buckets that are finished here. */
  readonly #exchanged = new Map<string, Promise<Uint8Array[]>>();

  constructor(deps: ReduceDeps<V>) {
    this.#deps = deps;
    const { worker, workers, cuts } = deps.membership;
    this.#cuts = cuts ?? evenCuts(deps.logicalRanks, workers);
    this.#ranks = ranksOfCut(this.#cuts, worker);
    this.#roots = subtreeRoots(this.#ranks.start, this.#ranks.end, deps.logicalRanks);
    this.#buckets = bucketsOf(deps.layout, backwardOrder(deps.layout), bucketElements);
    this.#units = new Map(deps.layout.units.map((unit) => [unit.name, unit]));
  }

  /** Forgets an unfinished step. */
  reset(): void {
    const { vectors } = this.#deps;
    for (const leaves of this.#leaves.values())
      for (const leaf of leaves.values()) vectors.dispose(leaf);
    for (const { values } of [...this.#ready.values()].flat()) vectors.dispose(values);
    this.#leaves.clear();
    this.#ready.clear();
    this.#exchanged.clear();
  }

  /** Takes one local rank's gradient of a unit (and disposes its tensors), scaled by `scale` before it is rounded. */
  async emit(unitName: string, rank: number, grads: UnitTensors, scale: number): Promise<void> {
    const { codec, vectors, membership } = this.#deps;
    const unit = this.#unit(unitName);
    const flat = flatGradient(unit, grads);
    for (const tensor of Object.values(grads)) tensor.dispose();
    this.#deps.watch?.gradient(unitName, rank, flat);
    const leaf = await vectors.adopt(flat);
    if (scale !== 1) vectors.scale(leaf, scale);
    codec.round(leaf);
    const leaves = this.#leaves.get(unitName) ?? new Map<number, V>();
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
    if (membership.workers > 1) this.#exchangeFinishedBuckets();
  }

  /**
   * This worker's shard of the reduced gradient of every unit: tree sum over all logical ranks times `factor`, the caller's.
   * Waits for the peers.
   * @param onRoot sees each sum before `factor`, when a further copy can be made that is exact in the exchange dtype
   */
  async collect(
    factor: number,
    onRoot?: (unit: string, values: V) => void,
  ): Promise<Map<string, V>> {
    const { membership, vectors, codec, logicalRanks, waiting } = this.#deps;
    const { worker, workers } = membership;
    invariant(
      this.#leaves.size === 0,
      `backward left ${[...this.#leaves.keys()].join(", ")} unfinished`,
    );
    const reduced = new Map<string, V>();
    for (const bucket of this.#buckets) {
      const nodes = bucket.units.map((unit) => this.#ownNodes(unit));
      const payloads = await waiting(async () => this.#exchanged.get(bucket.key) ?? []);
      invariant(workers === 1 || payloads.length === workers, `${bucket.key} was exchanged`);
      for (const [peer, payload] of payloads.entries()) {
        if (peer !== worker) this.#decodePeer(bucket, peer, payload, nodes);
      }
      bucket.units.forEach((unit, i) => {
        const known = nodes[i] as Map<string, V>;
        const values = sumTree(
          { start: 0, end: logicalRanks },
          (node) => known.get(nodeKey(node)),
          this.#add,
        );
        onRoot?.(unit.name, values);
        if (factor !== 1) vectors.scale(values, factor);
        reduced.set(unit.name, values);
        this.#ready.delete(unit.name);
      });
    }
    this.#exchanged.clear();
    invariant(codec.bytesPerValue > 0 && this.#ready.size === 0, "every unit was reduced");
    return reduced;
  }

  /** The tree sum over ALL logical ranks of fp32 vectors, given those of the local ranks in order. */
  async sum(key: string, perLocalRank: readonly Float32Array[]): Promise<Float32Array> {
    const { membership, logicalRanks } = this.#deps;
    const { worker, workers } = membership;
    const local = this.#ranks;
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
      const all = [...Array(workers).keys()];
      const outgoing = all.map((peer) => (peer === worker ? nothing : bytes));
      const expected = all.map((peer) =>
        peer === worker ? 0 : this.#rootsOf(peer).length * length * 4,
      );
      const received = await this.#deps.waiting(() => this.#deps.allToAll(key, outgoing, expected));
      for (const [peer, theirs] of received.entries()) {
        if (peer !== worker) this.#readSum(key, peer, length, theirs, known);
      }
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

  #exchangeFinishedBuckets(): void {
    const { worker, workers } = this.#deps.membership;
    const all = [...Array(workers).keys()];
    for (const bucket of this.#buckets) {
      const { key, units } = bucket;
      if (this.#exchanged.has(key) || !units.every(({ name }) => this.#ready.has(name))) continue;
      const exchanged = this.#deps.allToAll(
        key,
        all.map((peer) => (peer === worker ? nothing : this.#encodeFor(bucket, peer))),
        all.map((peer) => (peer === worker ? 0 : this.#bytesFrom(bucket, peer))),
      );
      // Its rejection is reported by collect.
      exchanged.catch(() => undefined);
      this.#exchanged.set(key, exchanged);
      for (const unit of units) this.#keepOwnSlice(unit);
    }
  }

  /** Bytes that a peer sends for a bucket: its roots, on the elements of this worker. */
  #bytesFrom({ units }: Bucket, peer: number): number {
    const { codec, membership } = this.#deps;
    const { worker, workers } = membership;
    const values = units.reduce((sum, { elements }) => {
      const { start, end } = shardOf(elements, worker, workers);
      return sum + end - start;
    }, 0);
    return values * this.#rootsOf(peer).length * codec.bytesPerValue;
  }

  /** A peer's slices: unit by unit, root by root, in the exchange dtype. */
  #encodeFor(bucket: Bucket, peer: number): Uint8Array {
    const { codec, membership, vectors } = this.#deps;
    const pieces: Uint8Array[] = [];
    for (const unit of bucket.units) {
      const { start, end } = shardOf(unit.elements, peer, membership.workers);
      for (const root of this.#ready.get(unit.name) ?? []) {
        pieces.push(codec.encode(vectors.view(root.values, start, end)));
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
    const { vectors, membership } = this.#deps;
    const { start, end } = shardOf(unit.elements, membership.worker, membership.workers);
    const roots = this.#ready.get(unit.name) ?? [];
    this.#ready.set(
      unit.name,
      roots.map(({ node, values }) => ({ node, values: vectors.slice(values, start, end) })),
    );
    for (const { values } of roots) vectors.dispose(values);
  }

  #ownNodes(unit: Unit): Map<string, V> {
    const roots = this.#ready.get(unit.name);
    invariant(roots, `no gradient of ${unit.name}`);
    return new Map(roots.map(({ node, values }) => [nodeKey(node), values]));
  }

  #decodePeer(
    bucket: Bucket,
    peer: number,
    payload: Uint8Array,
    nodes: readonly Map<string, V>[],
  ): void {
    const { codec, membership, vectors } = this.#deps;
    const roots = this.#rootsOf(peer);
    let offset = 0;
    const shards = bucket.units.map((unit) =>
      shardOf(unit.elements, membership.worker, membership.workers),
    );
    const expected = this.#bytesFrom(bucket, peer);
    expectBytes(`${bucket.key} from worker ${peer}`, expected, payload.byteLength);
    bucket.units.forEach((_, i) => {
      const { start, end } = shards[i] as Range;
      for (const node of roots) {
        const bytes = (end - start) * codec.bytesPerValue;
        const values = vectors.zeros(end - start);
        codec.decode(payload.subarray(offset, offset + bytes), values);
        (nodes[i] as Map<string, V>).set(nodeKey(node), values);
        offset += bytes;
      }
    });
  }

  #rootsOf(worker: number): TreeNode[] {
    const { start, end } = ranksOfCut(this.#cuts, worker);
    return subtreeRoots(start, end, this.#deps.logicalRanks);
  }

  /** Adds into the left one and frees the right one. */
  readonly #add = (left: V, right: V): V => {
    const { vectors, codec } = this.#deps;
    vectors.add(left, right);
    vectors.dispose(right);
    codec.round(left);
    return left;
  };

  // hot:
  readonly #addExact = (left: Float32Array, right: Float32Array): Float32Array => {
    for (let i = 0; i < left.length; i++) left[i] = (left[i] as number) + (right[i] as number);
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
