/**
 * Flat fp32 vectors V and their arithmetic, wherever they live: shards of parameters, moments and gradients. On the host V is a
 * Float32Array; an engine with a device brings vectors that stay there. What is disposed is freed or used again, so it must not be
 * touched any more. Views share memory and are not disposed. Elementwise results do not depend on an element's position.
 */
import * as tf from "@tensorflow/tfjs-core";
import type { AdamWOptions, FlatMath } from "./flat-math.js";
import { sumProducts } from "./products.js";

/** Four aligned vectors that one optimizer step changes. */
export interface OptimizerPart<V> {
  readonly param: V;
  readonly grad: V;
  readonly m: V;
  readonly v: V;
}

export interface VectorSpace<V> {
  size(x: V): number;
  /** Elements [start, end), sharing memory with x. */
  view(x: V, start: number, end: number): V;
  /** A copy of the elements [start, end). */
  slice(x: V, start: number, end: number): V;
  zeros(size: number): V;
  /** A vector that starts with these values. On the host it is the array itself. */
  from(values: Float32Array): V;
  dispose(x: V): void;
  copy(to: V, from: V): void;
  read(x: V, out: Float32Array): void;
  write(to: V, values: Float32Array): void;
  /** The values of a tensor, which it takes. */
  adopt(x: tf.Tensor1D): Promise<V>;
  /** A tensor [size] of what `fill` writes into every element of the vector it is given; the caller owns it. */
  tensor(size: number, fill: (into: V) => void): tf.Tensor1D;
  /** As FlatMath's, on all parts at once. */
  adamw(parts: readonly OptimizerPart<V>[], options: AdamWOptions): void;
  ema(teacher: V, student: V, momentum: number): void;
  add(to: V, from: V): void;
  scale(x: V, factor: number): void;
  roundHalf(x: V): void;
  /** Half-precision bits, on shared memory. */
  encodeHalf(x: V): Uint16Array;
  decodeHalf(bits: Uint16Array, to: V): void;
  /** For each vector its chunks' sums of squares, as FlatMath's; the order of a chunk's sum is the engine's own. */
  sumSquares(vectors: readonly V[], chunk: number): Float64Array[];
  /** For each pair of equally long vectors its chunks' inner products, to fp32 or better; also in the engine's own order. */
  sumProducts(pairs: readonly (readonly [V, V])[], chunk: number): Float64Array[];
}

/** Copies a float32 tensor's values into `out`, which has its number of elements. */
export type ReadInto = (tensor: tf.Tensor, out: Float32Array) => void;

/**
 * Vectors that are arrays of the host. Those it makes itself are used again once they are disposed: a step's gradients
 * as fresh arrays would have the garbage collector mark the whole heap every few steps.
 */
export function hostVectors(
  flat: FlatMath,
  readInto: ReadInto = (tensor, out) => out.set(tensor.dataSync()),
): VectorSpace<Float32Array> {
  /** Reused by size: a fresh large buffer costs more in page faults than in copying. */
  const staging = new Map<number, Float32Array>();
  /** Weak: what a step that failed has left behind is the garbage collector's. */
  const lent = new WeakSet<Float32Array>();
  const free = new Map<number, Float32Array[]>();
  /** With values of any kind. */
  const lend = (size: number): Float32Array => {
    const array = free.get(size)?.pop() ?? new Float32Array(size);
    lent.add(array);
    return array;
  };
  const copied = (values: Float32Array): Float32Array => {
    const copy = lend(values.length);
    copy.set(values);
    return copy;
  };
  return {
    size: (x) => x.length,
    view: (x, start, end) => x.subarray(start, end),
    slice: (x, start, end) => copied(x.subarray(start, end)),
    zeros: (size) => lend(size).fill(0),
    from: (values) => values,
    dispose(x) {
      // Not what `from` was given, nor what is disposed already: either would be lent while it is in use.
      if (!lent.delete(x)) return;
      const others = free.get(x.length);
      if (others) others.push(x);
      else free.set(x.length, [x]);
    },
    copy: (to, from) => to.set(from),
    read: (x, out) => {
      if (x !== out) out.set(x);
    },
    write: (to, values) => to.set(values),
    async adopt(x) {
      const values = lend(x.size);
      readInto(x, values);
      x.dispose();
      return values;
    },
    tensor(size, fill) {
      let buffer = staging.get(size);
      if (!buffer) {
        buffer = new Float32Array(new SharedArrayBuffer(size * 4));
        staging.set(size, buffer);
      }
      fill(buffer);
      // Copied before anything else can run: the buffer belongs to the next tensor of this size.
      return tf.tensor1d(buffer, "float32");
    },
    adamw(parts, options) {
      for (const { param, grad, m, v } of parts) flat.adamw(param, grad, m, v, options);
    },
    ema: (teacher, student, momentum) => flat.ema(teacher, student, momentum),
    add: (to, from) => flat.add(to, from),
    scale: (x, factor) => flat.scale(x, factor),
    roundHalf: (x) => flat.roundHalf(x),
    encodeHalf(x) {
      const out = new Uint16Array(new SharedArrayBuffer(x.length * 2));
      flat.encodeHalf(x, out);
      return out;
    },
    decodeHalf: (bits, to) => flat.decodeHalf(bits, to),
    sumSquares: (vectors, chunk) =>
      vectors.map((x) => {
        const out = new Float64Array(Math.ceil(x.length / chunk));
        flat.sumSquares(x, chunk, out);
        return out;
      }),
    sumProducts: (pairs, chunk) => pairs.map(([a, b]) => sumProducts(a, b, chunk)),
  };
}
