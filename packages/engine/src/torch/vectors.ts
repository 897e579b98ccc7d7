/** Flat float32 vectors in the device's memory (native/vectors.cc): what the worker keeps its shards and gradients in on a GPU. */
import * as tf from "@tensorflow/tfjs-core";
import { EngineError } from "../errors.js";
import type { AdamWOptions } from "../flat.js";
import type { Handle } from "../native.js";
import type { TorchBackend } from "./backend.js";

/** Elements [start, start + size) of a tensor [n], which TF.js counts like any other. */
export interface DeviceVector {
  readonly tensor: tf.Tensor1D;
  readonly start: number;
  readonly size: number;
}

interface AdamWPart {
  readonly param: DeviceVector;
  readonly grad: DeviceVector;
  readonly m: DeviceVector;
  readonly v: DeviceVector;
}

/** The arithmetic of FlatMath on device vectors. Views share memory and need no disposal; owners are disposed once. */
export class DeviceVectors {
  readonly #backend: TorchBackend;

  constructor(backend: TorchBackend) {
    this.#backend = backend;
  }

  size({ size }: DeviceVector): number {
    return size;
  }

  /** @throws RangeError if [start, end) is not inside x. */
  view(x: DeviceVector, start: number, end: number): DeviceVector {
    if (start < 0 || end < start || end > x.size) {
      throw new RangeError(`elements [${start}, ${end}) of a vector of ${x.size}`);
    }
    return { tensor: x.tensor, start: x.start + start, size: end - start };
  }

  slice(x: DeviceVector, start: number, end: number): DeviceVector {
    const copy = this.zeros(end - start);
    this.copy(copy, this.view(x, start, end));
    return copy;
  }

  zeros(size: number): DeviceVector {
    return whole(tf.zeros([size]));
  }

  from(values: Float32Array): DeviceVector {
    return whole(tf.tensor1d(values, "float32"));
  }

  dispose(x: DeviceVector): void {
    x.tensor.dispose();
  }

  copy(to: DeviceVector, from: DeviceVector): void {
    expectSize(to, from.size);
    const source = this.#handle(from);
    this.#native.vectorCopy(this.#handle(to), to.start, source, from.start, to.size);
  }

  read(x: DeviceVector, out: Float32Array): void {
    expectSize(x, out.length);
    this.#native.vectorRead(this.#handle(x), x.start, out);
  }

  write(to: DeviceVector, values: Float32Array): void {
    expectSize(to, values.length);
    this.#native.vectorWrite(this.#handle(to), to.start, values);
  }

  /** The tensor itself, which must be stored in float32. */
  async adopt(x: tf.Tensor1D): Promise<DeviceVector> {
    return whole(x);
  }

  tensor(size: number, fill: (into: DeviceVector) => void): tf.Tensor1D {
    const vector = this.zeros(size);
    fill(vector);
    return vector.tensor;
  }

  adamw(parts: readonly AdamWPart[], o: AdamWOptions): void {
    const backend = this.#backend;
    const names = ["param", "grad", "m", "v"] as const;
    const handles = names.map((name) => parts.map((part) => this.#handle(part[name])));
    for (const { param, grad, m, v } of parts) {
      if ([grad, m, v].some(({ start, size }) => start !== param.start || size !== param.size)) {
        throw new RangeError("the vectors of an optimizer step must lie alike");
      }
    }
    const [p = [], g = [], m = [], v = []] = handles;
    this.#native.vectorAdamw(
      backend.list(p),
      backend.append(g),
      backend.append(m),
      backend.append(v),
      backend.append(parts.map(({ param }) => param.start)),
      backend.append(parts.map(({ param }) => param.size)),
      ...([o.learningRate, o.beta1, o.beta2, o.eps, o.weightDecay, o.step] as const),
    );
  }

  ema(teacher: DeviceVector, student: DeviceVector, momentum: number): void {
    expectSize(teacher, student.size);
    const to = [this.#handle(teacher), teacher.start] as const;
    const from = [this.#handle(student), student.start] as const;
    this.#native.vectorEma(...to, ...from, teacher.size, momentum);
  }

  add(to: DeviceVector, from: DeviceVector): void {
    expectSize(to, from.size);
    const source = this.#handle(from);
    this.#native.vectorAdd(this.#handle(to), to.start, source, from.start, to.size);
  }

  scale(x: DeviceVector, factor: number): void {
    this.#native.vectorScale(this.#handle(x), x.start, x.size, factor);
  }

  roundHalf(x: DeviceVector): void {
    this.#native.vectorRoundHalf(this.#handle(x), x.start, x.size);
  }

  encodeHalf(x: DeviceVector): Uint16Array {
    const out = new Uint16Array(new SharedArrayBuffer(x.size * 2));
    this.#native.vectorEncodeHalf(this.#handle(x), x.start, out);
    return out;
  }

  decodeHalf(bits: Uint16Array, to: DeviceVector): void {
    expectSize(to, bits.length);
    this.#native.vectorDecodeHalf(this.#handle(to), to.start, bits);
  }

  sumSquares(vectors: readonly DeviceVector[], chunk: number): Float64Array[] {
    const chunks = vectors.map(({ size }) => Math.ceil(size / chunk));
    const sums = new Float64Array(chunks.reduce((a, b) => a + b, 0));
    const backend = this.#backend;
    this.#native.vectorSumSquares(
      backend.list(vectors.map((x) => this.#handle(x))),
      backend.append(vectors.map(({ start }) => start)),
      backend.append(vectors.map(({ size }) => size)),
      chunk,
      sums,
    );
    let end = 0;
    return chunks.map((count) => {
      end += count;
      return sums.subarray(end - count, end);
    });
  }

  /**
   * Products are rounded to float32, then summed in double precision by `sumSquares`, positive and negative ones apart: the
   * squares of their roots.
   */
  sumProducts(
    pairs: readonly (readonly [DeviceVector, DeviceVector])[],
    chunk: number,
  ): Float64Array[] {
    return pairs.map(([a, b]) => {
      expectSize(a, b.size);
      if (a.size === 0) return new Float64Array(0);
      const roots = tf.tidy(() => {
        const part = ({ tensor, start, size }: DeviceVector) => tf.slice(tensor, start, size);
        const products = tf.mul<tf.Tensor1D>(part(a), part(b));
        return [products, tf.neg(products)].map((x) => tf.sqrt(tf.relu(x)));
      });
      const [positive, negative] = this.sumSquares(roots.map(whole), chunk);
      tf.dispose(roots);
      return (positive as Float64Array).map((sum, i) => sum - (negative?.[i] ?? 0));
    });
  }

  get #native() {
    return this.#backend.native;
  }

  #handle({ tensor }: DeviceVector): Handle {
    if (tensor.isDisposed) throw new EngineError("the vector was disposed", { code: "engine-op" });
    return this.#backend.handle(tensor);
  }
}

/** @throws RangeError unless there are as many values as the vector has. */
function expectSize(x: DeviceVector, count: number): void {
  if (x.size !== count) throw new RangeError(`expected ${x.size} values, received ${count}`);
}

function whole(tensor: tf.Tensor1D): DeviceVector {
  return { tensor, start: 0, size: tensor.size };
}
