/**
 * Sums over a group in an order that the caller fixes. Not Gloo's own reduce-scatter, whose order depends on the number of
 * ranks: the addends travel, an all-to-all, and whoever owns a range adds them up there. The same bytes as a ring, and the
 * sum of an element is the same bits wherever it is computed.
 */
import type { FlatMath } from "../flat.js";
import type { Group } from "./group.js";

/** Elements [start, end) of a vector. */
export interface Elements {
  readonly start: number;
  readonly end: number;
}

/** Postfix: a number stands for that contribution, "add" for the sum of the two values before it. */
export type SumOrder = readonly (number | "add")[];

export interface Reduction {
  /** How many vectors each rank contributes. They are numbered through, by rank, then as the rank gives them. */
  readonly contributions: readonly number[];
  /** E.g. [0, 1, "add", 2, "add"] is (0 + 1) + 2. Every contribution stands in it once. */
  readonly order: SumOrder;
  /** What values are rounded to before they travel and after every addition, sent or not. */
  readonly dtype: "fp32" | "fp16";
  readonly flat: FlatMath;
}

/**
 * The sum of all ranks' contributions on this rank's elements.
 * @param vectors this rank's contributions, equally long on all ranks; their memory is used up
 * @param owned which elements each rank gets
 * @param out where the sum goes, if given; else a new array
 */
export async function reduceScatter(
  group: Group,
  key: string,
  vectors: readonly Float32Array[],
  {
    owned,
    out,
    ...reduction
  }: Reduction & { readonly owned: readonly Elements[]; readonly out?: Float32Array },
): Promise<Float32Array> {
  const { contributions } = reduction;
  const mine = contributions[group.rank] ?? 0;
  if (vectors.length !== mine || owned.length !== group.size) {
    throw new RangeError(
      `${key}: expected ${mine} vectors and ${group.size} ranges, received ${vectors.length} and ${owned.length}`,
    );
  }
  if (reduction.dtype === "fp16") for (const vector of vectors) reduction.flat.roundHalf(vector);
  const scratch = new Scratch(group);
  const wire = wireOf(reduction, scratch);
  const { start, end } = owned[group.rank] as Elements;
  const outgoing = owned.map((range, rank) =>
    rank === group.rank
      ? nothing
      : wire.encode(vectors.map((vector) => vector.subarray(range.start, range.end))),
  );
  const incoming = contributions.map((count, rank) =>
    rank === group.rank ? nothing : scratch.take(count * (end - start) * wire.bytesPerValue),
  );
  await group.allToAll(key, outgoing, incoming);
  const addends = incoming.flatMap((bytes, rank) =>
    rank === group.rank
      ? vectors.map((vector) => vector.subarray(start, end))
      : wire.decode(bytes, contributions[rank] as number, end - start),
  );
  const sum = sumInOrder(key, addends, reduction);
  const result = out ?? new Float32Array(sum.length);
  result.set(sum);
  scratch.give();
  return result;
}

/** The sum of all ranks' contributions, on every rank: a reduce-scatter over equal ranges, then an all-gather. */
export async function allReduce(
  group: Group,
  key: string,
  vectors: readonly Float32Array[],
  { length, ...reduction }: Reduction & { readonly length: number },
): Promise<Float32Array> {
  const owned = reduction.contributions.map((_, rank) => ({
    start: Math.floor((length * rank) / group.size),
    end: Math.floor((length * (rank + 1)) / group.size),
  }));
  const sum = await reduceScatter(group, key, vectors, { ...reduction, owned });
  const scratch = new Scratch(group);
  const wire = wireOf(reduction, scratch);
  const own = wire.encode([sum]);
  const incoming = owned.map(({ start, end }) => scratch.take((end - start) * wire.bytesPerValue));
  await group.allGather(key, own, incoming);
  const whole = new Float32Array(length);
  incoming.forEach((bytes, rank) => {
    const { start, end } = owned[rank] as Elements;
    whole.set(wire.decode(bytes, 1, end - start)[0] as Float32Array, start);
  });
  scratch.give();
  return whole;
}

/** Adds in place: the result is one of the addends. */
function sumInOrder(
  key: string,
  addends: readonly Float32Array[],
  { order, dtype, flat }: Reduction,
): Float32Array {
  const stack: Float32Array[] = [];
  for (const item of order) {
    if (item !== "add") {
      const addend = addends[item];
      if (!addend) throw new RangeError(`${key}: no contribution ${item} of ${addends.length}`);
      stack.push(addend);
      continue;
    }
    const [left, right] = [stack.at(-2), stack.pop()];
    if (!left || !right) throw new RangeError(`${key}: nothing to add in ${order.join(" ")}`);
    flat.add(left, right);
    if (dtype === "fp16") flat.roundHalf(left);
  }
  const [sum] = stack;
  if (!sum || stack.length > 1) throw new RangeError(`${key}: ${order.join(" ")} is not one sum`);
  return sum;
}

/** What a rank sends itself. */
const nothing = new Uint8Array(0);

/** Buffers of one operation, from those that earlier ones of the group left: fresh memory costs more than sending it. */
class Scratch {
  readonly #free: Map<number, Uint8Array[]>;
  readonly #taken: Uint8Array[] = [];

  constructor(group: Group) {
    this.#free = left.get(group) ?? new Map();
    left.set(group, this.#free);
  }

  take(bytes: number): Uint8Array {
    const buffer = this.#free.get(bytes)?.pop() ?? new Uint8Array(bytes);
    this.#taken.push(buffer);
    return buffer;
  }

  /** Gives all back; not after a failure, when the group may still hold them. */
  give(): void {
    for (const buffer of this.#taken.splice(0)) {
      const buffers = this.#free.get(buffer.byteLength) ?? [];
      this.#free.set(buffer.byteLength, buffers);
      buffers.push(buffer);
    }
  }
}

const left = new WeakMap<Group, Map<number, Uint8Array[]>>();

/** Values as they travel: several vectors one after the other. */
function wireOf({ dtype, flat }: Pick<Reduction, "dtype" | "flat">, scratch: Scratch) {
  const bytesPerValue = dtype === "fp16" ? 2 : 4;
  return {
    bytesPerValue,
    encode(vectors: readonly Float32Array[]): Uint8Array {
      const [first] = vectors;
      const length = first?.length ?? 0;
      if (first && vectors.length === 1 && dtype === "fp32") {
        return new Uint8Array(first.buffer, first.byteOffset, first.byteLength);
      }
      const bytes = scratch.take(vectors.length * length * bytesPerValue);
      vectors.forEach((vector, i) => {
        const at = i * length * bytesPerValue;
        if (dtype === "fp16") flat.encodeHalf(vector, new Uint16Array(bytes.buffer, at, length));
        else new Float32Array(bytes.buffer, at, length).set(vector);
      });
      return bytes;
    },
    decode(bytes: Uint8Array, count: number, length: number): Float32Array[] {
      return Array.from({ length: count }, (_, i) => {
        const at = bytes.byteOffset + i * length * bytesPerValue;
        if (dtype === "fp32") return new Float32Array(bytes.buffer, at, length);
        const vector = new Float32Array(length);
        flat.decodeHalf(new Uint16Array(bytes.buffer, at, length), vector);
        return vector;
      });
    },
  };
}
