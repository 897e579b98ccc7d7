/**
 * Another worker's shards, kept alive beside the own ones (fleet.redundancy: shadow). Each step its owner sends the sum of its
 * gradient shard in the exchange dtype, which holds it exactly; the same factor and the same update then give the same state.
 *
 * Worker w keeps the shards of (w + W - 1) mod W: the coordinator says so in the assignment.
 */
import { invariant, type Layout, PaddockError, type Range, shardOf } from "@paddock/contract";
import type { VectorSpace } from "@paddock/model";
import type { Membership, ShadowOf } from "../engine/calls.js";
import type { Codec } from "./codec.js";

export interface ShadowDeps<V> {
  readonly layout: Layout;
  readonly membership: Membership;
  readonly shadow: ShadowOf<V>;
  readonly codec: Codec<V>;
  readonly vectors: VectorSpace<V>;
}

const nothing = new Uint8Array(0);

export class Shadow<V> {
  readonly state: ShadowOf<V>["state"];
  readonly #deps: ShadowDeps<V>;
  /** Own sums of the step, by unit, in the exchange dtype. */
  readonly #outgoing = new Map<string, Uint8Array>();

  constructor(deps: ShadowDeps<V>) {
    this.#deps = deps;
    this.state = deps.shadow.state;
  }

  /** Notes the sum of this worker's shard of a unit, before it is scaled. */
  readonly note = (unit: string, values: V): void => {
    this.#outgoing.set(unit, this.#deps.codec.encode(values));
  };

  /** Sends the noted sums to the worker that keeps this one's shards, and returns the gradient of the shards kept here, times `factor`. */
  async exchange(
    factor: number,
    allToAll: (outgoing: Uint8Array[], expectedBytes: number[]) => Promise<Uint8Array[]>,
  ): Promise<Map<string, V>> {
    const { membership, shadow, codec, vectors, layout } = this.#deps;
    const keeper = (membership.worker + 1) % membership.workers;
    const all = [...Array(membership.workers).keys()];
    const payload = this.#takeOutgoing();
    const expected = layout.units.reduce((sum, unit) => sum + size(this.range(unit)), 0);
    const received = await allToAll(
      all.map((peer) => (peer === keeper ? payload : nothing)),
      all.map((peer) => (peer === shadow.worker ? expected * codec.bytesPerValue : 0)),
    );
    const bytes = received[shadow.worker];
    if (bytes?.byteLength !== expected * codec.bytesPerValue) {
      throw new PaddockError(
        "exchange-corrupt",
        `gradient sums of worker ${shadow.worker}: expected ${expected * codec.bytesPerValue} bytes, received ${bytes?.byteLength ?? 0}; was the peer built from another commit?`,
      );
    }
    const gradients = new Map<string, V>();
    let offset = 0;
    for (const unit of layout.units) {
      const values = vectors.zeros(size(this.range(unit)));
      const end = offset + vectors.size(values) * codec.bytesPerValue;
      codec.decode(bytes.subarray(offset, end), values);
      if (factor !== 1) vectors.scale(values, factor);
      gradients.set(unit.name, values);
      offset = end;
    }
    return gradients;
  }

  /** Elements of a unit that are kept here for the other worker. */
  range({ elements }: { readonly elements: number }): Range {
    return shardOf(elements, this.#deps.shadow.worker, this.#deps.membership.workers);
  }

  #takeOutgoing(): Uint8Array {
    const pieces = this.#deps.layout.units.map(({ name }) => {
      const piece = this.#outgoing.get(name);
      invariant(piece, `the sum of ${name} was noted`);
      return piece;
    });
    this.#outgoing.clear();
    const total = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
    const payload = new Uint8Array(new SharedArrayBuffer(total));
    let offset = 0;
    for (const piece of pieces) {
      payload.set(piece, offset);
      offset += piece.byteLength;
    }
    return payload;
  }
}

function size({ start, end }: Range): number {
  return end - start;
}
