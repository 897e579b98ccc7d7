/**
 * TF.js's `torch` backend: a table from TF.js data ids to tensors that libtorch owns. A data id owns
 * exactly one handle; disposing the last reference frees the tensor at once. Reshapes, transposes and
 * slices are views: they share storage, which lives as long as the last of them.
 */
import * as tf from "@tensorflow/tfjs-core";
import { EngineError } from "../errors.js";
import { dtypeNumbers, type Handle, type Native, type NativeDtype, resultInts } from "../native.js";

/**
 * What lies behind a data id. Ids that this backend makes are their own entries: looking one up costs nothing, where a
 * WeakMap would cost a tenth of an op. Ids that TF.js makes lead to theirs through `DataStorage`.
 */
class Entry {
  /** -1 for strings, which stay in JS. */
  readonly handle: Handle;
  readonly dtype: tf.DataType;
  readonly strings: Uint8Array[] | undefined;
  refCount: number;
  /** Undefined once the data is gone, disposed or moved to another backend. */
  owner: TorchBackend | undefined;

  constructor(
    owner: TorchBackend,
    handle: Handle,
    dtype: tf.DataType,
    refCount: number,
    strings?: Uint8Array[],
  ) {
    this.owner = owner;
    this.handle = handle;
    this.dtype = dtype;
    this.refCount = refCount;
    this.strings = strings;
  }
}

export class TorchBackend extends tf.KernelBackend {
  readonly native: Native;
  /** Of ids that are not their own entries. */
  readonly #data: tf.DataStorage<Entry>;
  #numDataIds = 0;
  readonly #shared: Int32Array;
  #listEnd = resultInts;
  #disposed = false;

  constructor(native: Native) {
    super();
    this.native = native;
    this.#shared = native.shared;
    this.#data = new tf.DataStorage(this, tf.engine());
  }

  /** The tensor behind a TF.js tensor; moves it here if another backend holds it. */
  handle(x: tf.TensorInfo): Handle {
    const { handle, dtype } = this.#entryOf(x.dataId);
    if (handle < 0)
      throw new EngineError(`torch has no kernel for ${dtype} tensors here`, { code: "engine-op" });
    return handle;
  }

  /** The handle of an optional input, -1 where it is absent. */
  optional(x: tf.TensorInfo | undefined): Handle {
    return x === undefined ? -1 : this.handle(x);
  }

  /** Writes an op's first list and returns its length. Call it after `handle`, which may write too. */
  list(values: ArrayLike<number>): number {
    this.#listEnd = resultInts;
    return this.append(values);
  }

  /** Writes the op's next list. */
  append(values: ArrayLike<number>): number {
    const start = this.#listEnd;
    const end = start + values.length;
    if (end > this.#shared.length) {
      throw new EngineError(
        `a list of ${values.length} does not fit an op's ${this.#shared.length - resultInts} numbers`,
        { code: "engine-op" },
      );
    }
    for (let i = 0; i < values.length; i++) this.#shared[start + i] = values[i] ?? 0;
    this.#listEnd = end;
    return values.length;
  }

  /** Gives TF.js the tensor an op has just returned; its shape is the one left in the shared array. */
  wrap(handle: Handle, dtype: tf.DataType, shape?: number[]): tf.TensorInfo {
    this.#numDataIds++;
    const dataId = new Entry(this, handle, dtype, 1);
    return { dataId, shape: shape ?? this.#shapeAt(1), dtype };
  }

  /** Gives TF.js the tensors an op left in the shared array; dtypes are float32 unless listed. */
  wrapAll(count: number, dtypes: readonly tf.DataType[] = []): tf.TensorInfo[] {
    const outputs: tf.TensorInfo[] = [];
    let at = 0;
    for (let i = 0; i < count; i++) {
      const shape = this.#shapeAt(at + 1);
      outputs.push(this.wrap(this.#shared[at] ?? -1, dtypes[i] ?? "float32", shape));
      at += 2 + shape.length;
    }
    return outputs;
  }

  /** A tensor without elements. */
  empty(shape: number[], dtype: tf.DataType): tf.TensorInfo {
    return this.wrap(this.native.fill(this.list(shape), 0, nativeDtype(dtype)), dtype, shape);
  }

  /** The same data under another shape or none: TF.js counts references, nothing is computed. */
  alias(x: tf.TensorInfo): tf.TensorInfo {
    this.incRef(x.dataId);
    return { dataId: x.dataId, shape: x.shape, dtype: x.dtype };
  }

  /**
   * A tensor over `values` itself where they lie in shared memory and the engine on a CPU; else a copy. Reads see
   * later writes to the array, and the array stays alive as long as the tensor or a view of it. For big vectors
   * that would be costly to copy. An ordinary ArrayBuffer is copied: it could be transferred away underneath.
   */
  borrow(values: Float32Array | Int32Array, shape: number[]): tf.TensorInfo {
    const dtype = values instanceof Float32Array ? "float32" : "int32";
    const handle = this.native.borrow(values, dtypeNumbers[dtype], this.list(shape));
    return this.wrap(handle, dtype, shape);
  }

  /** Copies a tensor's values into `out`, which has its type and number of elements. */
  readInto(x: tf.TensorInfo, out: Float32Array | Int32Array | Uint8Array): void {
    this.native.readInto(this.handle(x), nativeDtype(x.dtype), out);
  }

  override refCount(dataId: object): number {
    return this.#find(dataId)?.refCount ?? 0;
  }

  override incRef(dataId: object): void {
    this.#entryOf(dataId).refCount++;
  }

  decRef(dataId: object): void {
    const entry = this.#find(dataId);
    if (entry) entry.refCount--;
  }

  override numDataIds(): number {
    return this.#numDataIds;
  }

  override write(values: tf.BackendValues | null, shape: number[], dtype: tf.DataType): object {
    return this.#take(values, shape, dtype, 1);
  }

  override move(
    dataId: object,
    values: tf.BackendValues | null,
    shape: number[],
    dtype: tf.DataType,
    refCount: number,
  ): void {
    this.#data.set(dataId, this.#take(values, shape, dtype, refCount));
  }

  override readSync(dataId: object): tf.BackendValues {
    const { handle, dtype, strings } = this.#entryOf(dataId);
    if (strings !== undefined) return strings;
    const bytes = this.native.read(handle, nativeDtype(dtype));
    if (dtype === "float32") return new Float32Array(bytes);
    return dtype === "int32" ? new Int32Array(bytes) : new Uint8Array(bytes);
  }

  override async read(dataId: object): Promise<tf.BackendValues> {
    return this.readSync(dataId);
  }

  override disposeData(dataId: object, force = false): boolean {
    const entry = this.#find(dataId);
    if (entry === undefined) return true;
    entry.refCount--;
    if (!force && entry.refCount > 0) return false;
    if (entry.handle >= 0 && !this.#disposed) this.native.free(entry.handle);
    this.#numDataIds--;
    entry.owner = undefined;
    if (entry !== dataId) this.#data.delete(dataId);
    return true;
  }

  override memory() {
    return {
      unreliable: false,
      numTensorsInNative: this.native.numTensors(),
      numBytesInNative: this.native.numBytes(),
    };
  }

  override timerAvailable(): boolean {
    return true;
  }

  override async time(run: () => void): Promise<tf.BackendTimingInfo> {
    const startedAt = performance.now();
    run();
    return { kernelMs: performance.now() - startedAt };
  }

  override floatPrecision(): 32 {
    return 32;
  }

  override epsilon(): number {
    return 1e-7;
  }

  /** Frees every tensor of this thread, whether TF.js still knows it or not. */
  override dispose(): void {
    this.#disposed = true;
    this.native.freeAll();
  }

  /** The entry, moved here first if another backend holds the data. */
  #entryOf(dataId: object): Entry {
    return dataId instanceof Entry && dataId.owner === this ? dataId : this.#data.get(dataId);
  }

  /** The entry, if the data is here. */
  #find(dataId: object): Entry | undefined {
    if (dataId instanceof Entry && dataId.owner === this) return dataId;
    return this.#data.has(dataId) ? this.#data.get(dataId) : undefined;
  }

  /** An entry with a copy of the values; without values it is zeros. */
  #take(
    values: tf.BackendValues | null,
    shape: number[],
    dtype: tf.DataType,
    refCount: number,
  ): Entry {
    const strings = dtype === "string" ? (values as Uint8Array[]) : undefined;
    const handle =
      strings === undefined
        ? this.native.fromArray(
            typedArray(values, shape, dtype),
            nativeDtype(dtype),
            this.list(shape),
          )
        : -1;
    this.#numDataIds++;
    return new Entry(this, handle, dtype, refCount, strings);
  }

  #shapeAt(at: number): number[] {
    const rank = this.#shared[at] ?? 0;
    const shape = new Array<number>(rank);
    for (let d = 0; d < rank; d++) shape[d] = this.#shared[at + 1 + d] ?? 0;
    return shape;
  }
}

/** The addon's number of a TF.js dtype. */
export function nativeDtype(dtype: tf.DataType): number {
  if (Object.hasOwn(dtypeNumbers, dtype)) return dtypeNumbers[dtype as NativeDtype];
  throw new EngineError(
    `torch computes float32, int32 and bool, not ${dtype}; cast the tensor first`,
    { code: "engine-op" },
  );
}

function typedArray(
  values: tf.BackendValues | null,
  shape: number[],
  dtype: tf.DataType,
): ArrayBufferView {
  const array = values ?? new Float32Array(tf.util.sizeFromShape(shape));
  if (dtype === "float32")
    return array instanceof Float32Array ? array : Float32Array.from(array as never);
  if (dtype === "int32")
    return array instanceof Int32Array ? array : Int32Array.from(array as never);
  return array instanceof Uint8Array ? array : Uint8Array.from(array as never);
}
