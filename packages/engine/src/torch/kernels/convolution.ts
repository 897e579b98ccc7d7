/** Convolutions with their gradients, and the fused forms that layers use. Channels last, as in TF.js. */
import * as tf from "@tensorflow/tfjs-core";
import type { Handle, Native } from "../../native.js";
import type { TorchBackend } from "../backend.js";
import { kernel } from "./table.js";

type Info = tf.backend_util.Conv2DInfo | tf.backend_util.Conv3DInfo;

/** One number per space dimension. `after` is what padding (or crop, below zero) the output leaves. */
export interface Window {
  readonly size: readonly number[];
  readonly stride: readonly number[];
  readonly before: readonly number[];
  readonly after: readonly number[];
  readonly dilation: readonly number[];
}

/** The window of a convolution or pooling whose shapes TF.js has worked out. */
export function windowOf(info: Info): Window {
  const deep = "inDepth" in info;
  const pick = (front: number, height: number, width: number) =>
    deep ? [front, height, width] : [height, width];
  const size = pick(deep ? info.filterDepth : 1, info.filterHeight, info.filterWidth);
  const stride = pick(deep ? info.strideDepth : 1, info.strideHeight, info.strideWidth);
  const dilation = pick(deep ? info.dilationDepth : 1, info.dilationHeight, info.dilationWidth);
  const before = pick(deep ? info.padInfo.front : 0, info.padInfo.top, info.padInfo.left);
  const input = pick(deep ? info.inDepth : 1, info.inHeight, info.inWidth);
  const output = pick(deep ? info.outDepth : 1, info.outHeight, info.outWidth);
  const at = (values: readonly number[], d: number) => values[d] ?? 0;
  const after = output.map((out, d) => {
    const reach = (out - 1) * at(stride, d) + (at(size, d) - 1) * at(dilation, d) + 1;
    return reach - at(input, d) - at(before, d);
  });
  return { size, stride, before, after, dilation };
}

function lists(b: TorchBackend, { stride, before, after, dilation }: Window) {
  return [b.list(stride), b.append(before), b.append(after), b.append(dilation)] as const;
}

interface ConvAttrs {
  readonly strides: number | number[];
  readonly pad: "valid" | "same" | number | number[][];
  readonly dataFormat?: string;
  readonly dilations?: number | number[];
  readonly dimRoundingMode?: "floor" | "round" | "ceil";
}

const isChannelsFirst = ({ dataFormat }: ConvAttrs) =>
  dataFormat === "NCHW" || dataFormat === "NCDHW";

/** TF.js's own working-out of output and padding; x and filter by shape, in 2-D or 3-D. */
function infoOf(
  x: readonly number[],
  filter: readonly number[],
  attrs: ConvAttrs,
  depthwise = false,
) {
  const { computeConv2DInfo, computeConv3DInfo } = tf.backend_util;
  const { strides, pad, dimRoundingMode } = attrs;
  const dilations = attrs.dilations ?? 1;
  const format = isChannelsFirst(attrs) ? "channelsFirst" : "channelsLast";
  const compute = (x.length === 5 ? computeConv3DInfo : computeConv2DInfo) as (
    ...args: unknown[]
  ) => Info;
  return x.length === 5
    ? compute(x, filter, strides, dilations, pad, depthwise, format)
    : compute(x, filter, strides, dilations, pad, dimRoundingMode, depthwise, format);
}

/** Runs `op` on x with channels last; x is TF.js's tensor in the layout that `attrs` say. */
function channelsLast(
  b: TorchBackend,
  x: tf.TensorInfo,
  attrs: ConvAttrs,
  op: (x: Handle) => Handle,
) {
  if (!isChannelsFirst(attrs)) return op(b.handle(x));
  const rank = x.shape.length;
  const order = [0, ...Array.from({ length: rank - 2 }, (_, d) => d + 2), 1];
  const view = b.native.permute(b.handle(x), b.list(order));
  const result = op(view);
  b.native.free(view);
  return result;
}

/** A channels-last result in the layout that `attrs` say; consumes `x`. */
function asAsked(b: TorchBackend, x: Handle, rank: number, attrs: ConvAttrs): Handle {
  if (!isChannelsFirst(attrs)) return x;
  const order = [0, rank - 1, ...Array.from({ length: rank - 2 }, (_, d) => d + 1)];
  const view = b.native.permute(x, b.list(order));
  b.native.free(x);
  return view;
}

function convolve(
  b: TorchBackend,
  x: tf.TensorInfo,
  w: tf.TensorInfo,
  attrs: ConvAttrs,
  depthwise: boolean,
  then: (y: Handle) => Handle = (y) => y,
): Handle {
  const window = windowOf(infoOf(x.shape, w.shape, attrs, depthwise));
  const filter = b.handle(w);
  const result = channelsLast(b, x, attrs, (last) =>
    b.native.convolution(last, filter, ...lists(b, window), depthwise),
  );
  return asAsked(b, then(result), x.shape.length, attrs);
}

function forward(name: string, depthwise: boolean): tf.KernelConfig {
  return kernel<tf.Conv2DInputs, ConvAttrs>(name, (b, { x, filter }, attrs) =>
    b.wrap(convolve(b, x, filter, attrs, depthwise), x.dtype),
  );
}

function gradInput(name: string, depthwise: boolean): tf.KernelConfig {
  type Attrs = ConvAttrs & { readonly inputShape: number[] };
  return kernel<tf.Conv2DBackpropInputInputs, Attrs>(name, (b, { dy, filter }, attrs) => {
    const { inputShape } = attrs;
    const window = windowOf(infoOf(inputShape, filter.shape, attrs, depthwise));
    const [n = 0, c = 0, ...space] = inputShape;
    const lastShape = isChannelsFirst(attrs) ? [n, ...space, c] : inputShape;
    const w = b.handle(filter);
    const result = channelsLast(b, dy, attrs, (last) => {
      const sizes = [...lists(b, window), b.append(lastShape)] as const;
      return b.native.convolutionGradInput(last, w, ...sizes, depthwise);
    });
    return b.wrap(asAsked(b, result, inputShape.length, attrs), "float32", inputShape);
  });
}

function gradFilter(name: string, depthwise: boolean): tf.KernelConfig {
  type Attrs = ConvAttrs & { readonly filterShape: number[] };
  return kernel<tf.Conv2DBackpropFilterInputs, Attrs>(name, (b, { x, dy }, attrs) => {
    const { filterShape } = attrs;
    const window = windowOf(infoOf(x.shape, filterShape, attrs, depthwise));
    const result = channelsLast(b, x, attrs, (lastX) =>
      channelsLast(b, dy, attrs, (lastDy) => {
        const sizes = [...lists(b, window), b.append(filterShape)] as const;
        return b.native.convolutionGradFilter(lastX, lastDy, ...sizes, depthwise);
      }),
    );
    return b.wrap(result, "float32", filterShape);
  });
}

interface FusedInputs {
  readonly bias?: tf.TensorInfo;
  readonly preluActivationWeights?: tf.TensorInfo;
}

interface FusedAttrs {
  readonly activation: tf.fused.Activation;
  readonly leakyreluAlpha?: number;
}

/** Adds the bias and applies the activation, of slopes -1 if it has none, to `result`, which it consumes. */
function finish(
  b: TorchBackend,
  result: Handle,
  bias: tf.TensorInfo | undefined,
  slopes: Handle,
  attrs: FusedAttrs,
): Handle {
  const { native } = b;
  const steps = activation(native, attrs, slopes);
  if (bias !== undefined) steps.unshift((x) => native.add(x, b.handle(bias)));
  return steps.reduce((x, step) => {
    const next = step(x);
    native.free(x);
    return next;
  }, result);
}

function activation(native: Native, attrs: FusedAttrs, prelu: Handle): ((x: Handle) => Handle)[] {
  switch (attrs.activation) {
    case "relu":
    case "relu6":
    case "elu":
    case "sigmoid": {
      const op = attrs.activation;
      return [(x) => native[op](x)];
    }
    case "prelu":
      return [(x) => native.prelu(x, prelu)];
    case "leakyrelu":
      return [(x) => native.leakyRelu(x, attrs.leakyreluAlpha ?? 0.2)];
    default:
      return [];
  }
}

function fused(name: string, depthwise: boolean): tf.KernelConfig {
  type Inputs = Record<"x" | "filter", tf.TensorInfo> & FusedInputs;
  return kernel<Inputs, ConvAttrs & FusedAttrs>(name, (b, inputs, attrs) => {
    const { x, filter, preluActivationWeights: prelu } = inputs;
    // The activation sees channels last; weights of channels-first models have them first.
    const turn = isChannelsFirst(attrs) && prelu !== undefined && prelu.shape.length === 3;
    const slopes = turn ? b.native.permute(b.handle(prelu), b.list([1, 2, 0])) : b.optional(prelu);
    const end = (y: Handle) => finish(b, y, inputs.bias, slopes, attrs);
    const result = b.wrap(convolve(b, x, filter, attrs, depthwise, end), x.dtype);
    if (turn) b.native.free(slopes);
    return result;
  });
}

type MatMulInputs = Record<"a" | "b", tf.TensorInfo> & FusedInputs;

export const convolutionKernels: readonly tf.KernelConfig[] = [
  forward("Conv2D", false),
  forward("Conv3D", false),
  forward("DepthwiseConv2dNative", true),
  gradInput("Conv2DBackpropInput", false),
  gradInput("Conv3DBackpropInputV2", false),
  gradInput("DepthwiseConv2dNativeBackpropInput", true),
  gradFilter("Conv2DBackpropFilter", false),
  gradFilter("Conv3DBackpropFilterV2", false),
  gradFilter("DepthwiseConv2dNativeBackpropFilter", true),
  fused("FusedConv2D", false),
  fused("FusedDepthwiseConv2D", true),
  kernel<MatMulInputs, tf.BatchMatMulAttrs & FusedAttrs>("_FusedMatMul", (bk, inputs, attrs) => {
    const { a, b } = inputs;
    const flags = [attrs.transposeA, attrs.transposeB] as const;
    const product = bk.native.matmul(bk.handle(a), bk.handle(b), ...flags);
    const slopes = bk.optional(inputs.preluActivationWeights);
    return bk.wrap(finish(bk, product, inputs.bias, slopes, attrs), a.dtype);
  }),
];
