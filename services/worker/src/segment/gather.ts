/** Gathers a unit's weights from all shards, counts what is gathered, frees it after use. */
import { type Layout, PaddockError, shardOf, type Unit } from "@paddock/contract";
import {
  type Gathered,
  type Precision,
  type Side,
  type VectorSpace,
  viewUnit,
} from "@paddock/model";
import type * as tf from "@tensorflow/tfjs-core";
import type { Membership, StateOf } from "../engine/calls.js";
import type { Codec } from "./codec.js";

/** "together": all workers gather this unit at this point of their step. "alone": this one does by itself. */
export type GatherMode = "together" | "alone";

export interface UnitRequest {
  readonly part: string;
  /** By worker, the own included. */
  readonly expectedBytes: readonly number[];
  readonly everyone: boolean;
}

export interface GatherDeps<V> {
  readonly layout: Layout;
  /** Units of the frozen teacher, if there is one. */
  readonly frozen: readonly Unit[];
  readonly membership: Membership;
  readonly state: StateOf<V>;
  readonly codec: Codec<V>;
  readonly vectors: VectorSpace<V>;
  /** Of the weights and biases of linear layers, once they are gathered. */
  readonly precision: Precision;
  /** Bytes of a published part from every peer, indexed by worker. Not called when there is one worker. */
  readonly fetchUnit: (request: UnitRequest) => Promise<Uint8Array[]>;
}

export class Gatherer<V> {
  readonly #deps: GatherDeps<V>;
  readonly #units: ReadonlyMap<string, Unit>;
  readonly #frozen: ReadonlyMap<string, Unit>;
  readonly #prefetched = new Map<string, Promise<Uint8Array[]>>();
  #gatheredBytes = 0;
  #peakBytes = 0;

  constructor(deps: GatherDeps<V>) {
    this.#deps = deps;
    this.#units = new Map(deps.layout.units.map((unit) => [unit.name, unit]));
    this.#frozen = new Map(deps.frozen.map((unit) => [unit.name, unit]));
  }

  /** Most bytes of units that were gathered (or on their way) at once since the last call. fp32, of all sides. */
  takePeakBytes(): number {
    const peak = this.#peakBytes;
    this.#peakBytes = this.#gatheredBytes;
    return peak;
  }

  /** Forgets what an unfinished step had asked for. */
  reset(): void {
    this.#prefetched.clear();
    this.#gatheredBytes = 0;
  }

  /** Starts to fetch a unit that will be gathered next, by all workers. */
  prefetch(side: Side, unit: string): void {
    const part = `${side}/${unit}`;
    if (this.#deps.membership.workers === 1 || this.#prefetched.has(part)) return;
    const { elements } = this.#unit(side, unit);
    this.#count(elements * 4);
    const parts = this.#fetch(part, elements, "together");
    // Its rejection is reported by the gather that awaits it.
    parts.catch(() => undefined);
    this.#prefetched.set(part, parts);
  }

  /** The unit's tensors, as every worker sees them: rounded to the exchange dtype. The caller releases them once. */
  async gather(side: Side, name: string, mode: GatherMode = "together"): Promise<Gathered> {
    const unit = this.#unit(side, name);
    const part = `${side}/${name}`;
    const bytes = unit.elements * 4;
    if (!this.#prefetched.has(part)) this.#count(bytes);
    const whole = await this.#assemble(side, unit, mode);
    const tensors = viewUnit(unit, whole, this.#deps.precision);
    whole.dispose();
    let released = false;
    return {
      tensors,
      release: () => {
        if (released) return;
        released = true;
        for (const tensor of Object.values(tensors)) tensor.dispose();
        this.#count(-bytes);
      },
    };
  }

  #fetch(part: string, elements: number, mode: GatherMode): Promise<Uint8Array[]> {
    const { membership, codec, fetchUnit } = this.#deps;
    const expectedBytes = Array.from({ length: membership.workers }, (_, worker) => {
      const { start, end } = shardOf(elements, worker, membership.workers);
      return (end - start) * codec.bytesPerValue;
    });
    return fetchUnit({ part, expectedBytes, everyone: mode === "together" });
  }

  async #assemble(side: Side, unit: Unit, mode: GatherMode): Promise<tf.Tensor1D> {
    const { membership, state, codec, vectors } = this.#deps;
    const part = `${side}/${unit.name}`;
    const peers =
      membership.workers === 1
        ? []
        : await (this.#prefetched.get(part) ?? this.#fetch(part, unit.elements, mode));
    this.#prefetched.delete(part);
    return vectors.tensor(unit.elements, (whole) => {
      for (let worker = 0; worker < membership.workers; worker++) {
        const { start, end } = shardOf(unit.elements, worker, membership.workers);
        if (start === end) continue;
        const target = vectors.view(whole, start, end);
        if (worker === membership.worker) {
          vectors.copy(target, state[side][unit.name] as V);
          codec.round(target);
          continue;
        }
        const bytes = peers[worker];
        if (bytes?.byteLength !== (end - start) * codec.bytesPerValue) {
          throw new PaddockError(
            "exchange-corrupt",
            `${part} from worker ${worker}: expected ${(end - start) * codec.bytesPerValue} bytes, received ${bytes?.byteLength ?? 0}; was it started with another spec?`,
          );
        }
        codec.decode(bytes, target);
      }
    });
  }

  #unit(side: Side, name: string): Unit {
    const unit = (side === "frozen" ? this.#frozen : this.#units).get(name);
    if (!unit) throw new PaddockError("internal", `no unit "${name}" of the ${side}`);
    return unit;
  }

  #count(bytes: number): void {
    this.#gatheredBytes += bytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#gatheredBytes);
  }
}
