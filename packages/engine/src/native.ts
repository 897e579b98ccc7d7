/**
 * The one door to the addon. Its functions take tensors as handles (positive int32, -1 for an absent
 * optional one) and lists as counts, the list itself lying in `shared` (see native/binding.h).
 */
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

/** A tensor of this thread. Not a number to compute with. */
export type Handle = number;
/** Length of a list that was written to `shared` before the call. */
export type ListLength = number;
/** Number of tensors an op left at the front of `shared`. */
export type ResultCount = number;

export const dtypeNumbers = { float32: 0, int32: 1, bool: 2 } as const;
export type NativeDtype = keyof typeof dtypeNumbers;

/** How a float32 tensor is stored and multiplied (see native/precision.h). */
export const precisionNumbers = { fp32: 0, bf16: 1, fp16: 2 } as const;
export type Precision = keyof typeof precisionNumbers;

/** Ints at the front of `shared` that hold results: (handle, rank, sizes) per tensor. */
export const resultInts = 1024;

export type UnaryOp =
  | (
      | "abs"
      | "acos"
      | "acosh"
      | "asin"
      | "asinh"
      | "atan"
      | "atanh"
      | "ceil"
      | "cos"
      | "cosh"
      | "elu"
    )
  | ("erf" | "exp" | "expm1" | "floor" | "isFinite" | "isInf" | "isNan" | "log" | "log1p")
  | (
      | "logicalNot"
      | "neg"
      | "onesLike"
      | "reciprocal"
      | "relu"
      | "relu6"
      | "round"
      | "rsqrt"
      | "selu"
    )
  | ("sigmoid" | "sign" | "sin" | "sinh" | "softplus" | "sqrt" | "square" | "tan" | "tanh")
  | ("zerosLike" | "gelu" | "swiglu" | "diag" | "nonzero");

export type BinaryOp =
  | ("add" | "atan2" | "bitwiseAnd" | "div" | "eluGrad" | "equal" | "floorDiv" | "greater")
  | ("greaterEqual" | "less" | "lessEqual" | "logicalAnd" | "logicalOr" | "logicalXor" | "maximum")
  | ("minimum" | "mod" | "mul" | "notEqual" | "pow" | "prelu" | "squaredDifference" | "sub")
  | ("geluBackward" | "swigluBackward" | "gatherRows" | "gatherNd");

export type ReduceOp = "all" | "any" | "max" | "mean" | "min" | "prod" | "sum";
export type ScanOp = "cumprod" | "cumsum";

type ScaledAdd<R> = (x: Handle, r: Handle, gamma: Handle, rows: Handle, rowScale: Handle) => R;

/**
 * Lists of one number per dimension: (stride, before, after, dilation) of a convolution, (size, stride,
 * before, after) of a pooling window; before and after are padding.
 */
type Window = [ListLength, ListLength, ListLength, ListLength];

type ConvolutionGradient = (
  first: Handle,
  second: Handle,
  ...window: [...Window, shape: ListLength, depthwise: boolean]
) => Handle;

type Resize = (
  x: Handle,
  height: number,
  width: number,
  bilinear: boolean,
  alignCorners: boolean,
  halfPixelCenters: boolean,
) => Handle;

export interface Native
  extends Record<UnaryOp, (x: Handle) => Handle>,
    Record<BinaryOp, (a: Handle, b: Handle) => Handle>,
    Record<ReduceOp, (x: Handle, axes: ListLength, keepDims: boolean) => Handle>,
    Record<ScanOp, (x: Handle, axis: number, exclusive: boolean, reverse: boolean) => Handle> {
  readonly shared: Int32Array;

  fromArray(values: ArrayBufferView, dtype: number, shape: ListLength): Handle;
  borrow(values: ArrayBufferView, dtype: number, shape: ListLength): Handle;
  read(x: Handle, dtype: number): ArrayBuffer;
  readInto(x: Handle, dtype: number, out: ArrayBufferView): void;
  free(x: Handle): void;
  freeAll(): void;
  numTensors(): number;
  numBytes(): number;
  cachedBytes(): number;
  setThreads(threads: number): void;
  toPrecision(x: Handle, precision: number): Handle;
  cudaDevices(): number;
  setDevice(name: string): string;
  synchronize(): void;
  /** Fills five numbers, see native/device.cc; false where this libtorch cannot tell. */
  deviceMemory(out: Float64Array): boolean;
  /** Whether float32 products on CUDA may round their operands to TF32 (10 bits). Off at first. */
  allowTf32(allowed: boolean): void;
  /** Which library multiplies large float32 matrices on this CPU: oneDNN, MKL, or ATen without either. */
  productLibrary(): string;

  addN(terms: ListLength): Handle;
  cast(x: Handle, dtype: number): Handle;
  clip(x: Handle, low: number, high: number): Handle;
  leakyRelu(x: Handle, alpha: number): Handle;
  select(condition: Handle, then: Handle, otherwise: Handle): Handle;
  step(x: Handle, alpha: number): Handle;
  argMax(x: Handle, axis: number): Handle;
  argMin(x: Handle, axis: number): Handle;
  softmax(x: Handle, axis: number): Handle;
  logSoftmax(x: Handle, axis: number): Handle;

  reshape(x: Handle, shape: ListLength): Handle;
  permute(x: Handle, axes: ListLength): Handle;
  broadcastTo(x: Handle, shape: ListLength): Handle;
  tile(x: Handle, repeats: ListLength): Handle;
  flip(x: Handle, axes: ListLength): Handle;
  selectAt(x: Handle, axis: number, index: number): Handle;
  slice(x: Handle, begin: ListLength, size: ListLength): Handle;
  stridedSlice(x: Handle, begin: ListLength, end: ListLength, stride: ListLength): Handle;
  concat(parts: ListLength, axis: number): Handle;
  stack(parts: ListLength, axis: number): Handle;
  pad(x: Handle, padding: ListLength, value: number): Handle;
  mirrorPad(x: Handle, before: ListLength, after: ListLength, symmetric: boolean): Handle;
  fill(shape: ListLength, value: number, dtype: number): Handle;
  range(start: number, stride: number, count: number, dtype: number): Handle;

  gather(x: Handle, indices: Handle, axis: number, batchDims: number): Handle;
  segmentSum(x: Handle, segmentIds: Handle, numSegments: number): Handle;
  scatterNd(indices: Handle, updates: Handle, shape: ListLength): Handle;
  scatterUpdate(x: Handle, indices: Handle, updates: Handle): Handle;
  oneHot(indices: Handle, depth: number, on: number, off: number, dtype: number): Handle;
  topK(x: Handle, k: number): ResultCount;
  searchSorted(sorted: Handle, values: Handle, right: boolean): Handle;
  bincount(x: Handle, weights: Handle, size: number, binary: boolean): Handle;
  einsum(equation: string, terms: ListLength): Handle;
  batchNorm(
    x: Handle,
    mean: Handle,
    variance: Handle,
    offset: Handle,
    scale: Handle,
    eps: number,
  ): Handle;

  convolution(x: Handle, w: Handle, ...window: [...Window, depthwise: boolean]): Handle;
  convolutionGradInput: ConvolutionGradient;
  convolutionGradFilter: ConvolutionGradient;
  averagePool(x: Handle, ...window: Window): Handle;
  averagePoolGrad(dy: Handle, x: Handle, ...window: Window): Handle;
  maxPool(x: Handle, ...window: Window): Handle;
  maxPoolGrad(dy: Handle, x: Handle, ...window: Window): Handle;
  resize: Resize;
  resizeGrad: Resize;

  matmul(a: Handle, b: Handle, transposeA: boolean, transposeB: boolean): Handle;
  linear(x: Handle, w: Handle, bias: Handle): Handle;
  linearBackward(dy: Handle, x: Handle, w: Handle, needDx: boolean, hasBias: boolean): ResultCount;
  mlp(x: Handle, weights: ListLength, biases: ListLength): ResultCount;
  mlpBackward(
    dy: Handle,
    x: Handle,
    before: ListLength,
    weights: ListLength,
    hasBias: boolean,
  ): ResultCount;
  layerNorm(x: Handle, gamma: Handle, beta: Handle, eps: number): ResultCount;
  layerNormBackward(dy: Handle, x: Handle, mean: Handle, rstd: Handle, gamma: Handle): ResultCount;
  l2Normalize(x: Handle, eps: number): ResultCount;
  l2NormalizeBackward(dy: Handle, y: Handle, norm: Handle): Handle;
  weightNorm(v: Handle, g: Handle): ResultCount;
  weightNormBackward(dw: Handle, g: Handle, unit: Handle, norm: Handle): ResultCount;
  attention(qkv: Handle, heads: number, runs: ListLength): ResultCount;
  attentionBackward(
    dy: Handle,
    qkv: Handle,
    out: Handle,
    lse: Handle,
    heads: number,
    runs: ListLength,
  ): Handle;
  /** Overwrites q and k of qkv [T,3C]. */
  rope(
    qkv: Handle,
    cos: Handle,
    sin: Handle,
    heads: number,
    prefix: number,
    runs: ListLength,
    inverse: boolean,
    rounded: boolean,
  ): void;
  scaledAdd: ScaledAdd<Handle>;
  scaledAddBackward: ScaledAdd<ResultCount>;
  scatterAddRows(x: Handle, r: Handle, rows: Handle): Handle;
  crossEntropy(
    logits: Handle,
    target: Handle,
    index: Handle,
    weight: Handle,
    temperature: number,
  ): ResultCount;
  koleo(x: Handle, topk: number, ranks: number, weight: number, eps: number): ResultCount;
  sinkhornStart(scores: Handle, shift: number, temperature: number): ResultCount;
  sinkhornColumns(q: Handle, v: Handle): Handle;
  sinkhornRows(q: Handle, u: Handle): Handle;
  sinkhornFinish(q: Handle, u: Handle, v: Handle): Handle;
  sequenceRows(
    patches: Handle,
    cls: Handle,
    registers: Handle,
    positions: Handle,
    matrix: Handle,
    n: number,
  ): Handle;
  sequenceRowsBackward(
    d: Handle,
    matrix: Handle,
    n: number,
    registers: number,
    withPositions: boolean,
  ): ResultCount;
  maskRows(x: Handle, mask: Handle, token: Handle): Handle;
  maskRowsBackward(d: Handle, mask: Handle): ResultCount;

  ncclVersion(path: string): number;
  ncclPath(): string;
  ncclUniqueId(out: Uint8Array): void;
  ncclOpen(id: Uint8Array, rank: number, size: number): number;
  ncclPoll(communicator: number): boolean;
  ncclAllToAll(communicator: number, outgoing: ListLength, incoming: ListLength): void;
  ncclAbort(communicator: number): void;

  flatAdamw(
    param: Float32Array,
    grad: Float32Array,
    m: Float32Array,
    v: Float32Array,
    learningRate: number,
    beta1: number,
    beta2: number,
    eps: number,
    weightDecay: number,
    step: number,
  ): void;
  flatEma(teacher: Float32Array, student: Float32Array, momentum: number): void;
  flatEncodeHalf(src: Float32Array, dst: Uint16Array): void;
  flatDecodeHalf(src: Uint16Array, dst: Float32Array): void;
  flatRoundHalf(x: Float32Array): void;
  flatAdd(dst: Float32Array, src: Float32Array): void;
  flatScale(x: Float32Array, factor: number): void;
  flatSumSquares(x: Float32Array, chunk: number, out: Float64Array): void;
  flatAllFinite(x: Float32Array): boolean;

  cut(
    x: Handle,
    starts: ListLength,
    ranks: ListLength,
    sizes: ListLength,
    precisions: ListLength,
  ): ResultCount;
  join(tensors: ListLength, starts: ListLength, size: number): Handle;
  vectorAdamw(
    param: ListLength,
    grad: ListLength,
    m: ListLength,
    v: ListLength,
    starts: ListLength,
    counts: ListLength,
    learningRate: number,
    beta1: number,
    beta2: number,
    eps: number,
    weightDecay: number,
    step: number,
  ): void;
  vectorEma(
    teacher: Handle,
    toStart: number,
    student: Handle,
    fromStart: number,
    count: number,
    momentum: number,
  ): void;
  vectorCopy(to: Handle, toStart: number, from: Handle, fromStart: number, count: number): void;
  vectorAdd(to: Handle, toStart: number, from: Handle, fromStart: number, count: number): void;
  vectorScale(x: Handle, start: number, count: number, factor: number): void;
  vectorRoundHalf(x: Handle, start: number, count: number): void;
  vectorRead(x: Handle, start: number, out: Float32Array): void;
  vectorWrite(x: Handle, start: number, values: Float32Array): void;
  vectorEncodeHalf(x: Handle, start: number, out: Uint16Array): void;
  vectorDecodeHalf(x: Handle, start: number, halves: Uint16Array): void;
  vectorSumSquares(
    x: ListLength,
    starts: ListLength,
    counts: ListLength,
    chunk: number,
    out: Float64Array,
  ): void;
}

/** What the build wrote beside the addon. */
export interface BuildStamp {
  /** libtorch's version, and where it was found. */
  readonly version: string;
  readonly from: string;
}

export type NativeLoad =
  | { readonly kind: "loaded"; readonly native: Native; readonly stamp: BuildStamp }
  | { readonly kind: "absent"; readonly why: string };

/** Where the build puts the addon. */
export const addonPath = fileURLToPath(new URL("../build/paddock_engine.node", import.meta.url));
const stampPath = fileURLToPath(new URL("../build/stamp.json", import.meta.url));

/** Loads the addon into this thread, once. Says why not instead of throwing. */
export function loadNative(): NativeLoad {
  loaded ??= tryLoad();
  return loaded;
}

let loaded: NativeLoad | undefined;

function tryLoad(): NativeLoad {
  if (!fs.existsSync(addonPath)) {
    return { kind: "absent", why: "the torch addon is not built (npm run build:native says why)" };
  }
  try {
    const native: Native = createRequire(import.meta.url)(addonPath);
    const stamp: { torch: BuildStamp } = JSON.parse(fs.readFileSync(stampPath, "utf8"));
    return { kind: "loaded", native, stamp: stamp.torch };
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    return { kind: "absent", why: `the torch addon does not load: ${reason}` };
  }
}
