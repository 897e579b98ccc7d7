/** Pooling, resizing, batch normalisation, and the moves between space, depth and batch. */
import * as tf from "@tensorflow/tfjs-core";
import type { Native } from "../../native.js";
import type { TorchBackend } from "../backend.js";
import { type Window, windowOf } from "./convolution.js";
import { kernel } from "./table.js";

interface PoolAttrs {
  readonly filterSize: number | number[];
  readonly strides: number | number[];
  readonly pad: "valid" | "same" | number | number[][];
  readonly dimRoundingMode?: "floor" | "round" | "ceil";
}

function poolInfo(x: tf.TensorInfo, attrs: PoolAttrs) {
  const { computePool2DInfo, computePool3DInfo } = tf.backend_util;
  const { filterSize, strides, pad, dimRoundingMode } = attrs;
  const compute = (x.shape.length === 5 ? computePool3DInfo : computePool2DInfo) as (
    ...args: unknown[]
  ) => ReturnType<typeof computePool2DInfo>;
  return compute(x.shape, filterSize, strides, 1, pad, dimRoundingMode);
}

function lists(b: TorchBackend, { size, stride, before, after }: Window) {
  return [b.list(size), b.append(stride), b.append(before), b.append(after)] as const;
}

function pool(name: string, op: "averagePool" | "maxPool"): tf.KernelConfig {
  return kernel<tf.MaxPoolInputs, PoolAttrs>(name, (b, { x }, attrs) => {
    const info = poolInfo(x, attrs);
    if (info.outShape.includes(0)) return b.empty(info.outShape, x.dtype);
    const source = b.handle(x);
    return b.wrap(b.native[op](source, ...lists(b, windowOf(info))), x.dtype);
  });
}

function poolGrad(name: string, op: "averagePoolGrad" | "maxPoolGrad"): tf.KernelConfig {
  return kernel<tf.AvgPoolGradInputs, PoolAttrs>(name, (b, { dy, input }, attrs) => {
    const sources = [b.handle(dy), b.handle(input)] as const;
    const result = b.native[op](...sources, ...lists(b, windowOf(poolInfo(input, attrs))));
    return b.wrap(result, "float32", input.shape);
  });
}

function resize(name: string, bilinear: boolean): tf.KernelConfig {
  return kernel<tf.ResizeBilinearInputs, tf.ResizeBilinearAttrs>(name, (b, { images }, attrs) => {
    const { size, alignCorners, halfPixelCenters } = attrs;
    const source = b.handle(images);
    const result = b.native.resize(source, ...size, bilinear, alignCorners, halfPixelCenters);
    return b.wrap(result, "float32");
  });
}

function resizeGrad(name: string, bilinear: boolean): tf.KernelConfig {
  return kernel<tf.ResizeBilinearGradInputs, tf.ResizeBilinearGradAttrs>(
    name,
    (b, { images, dy }, { alignCorners, halfPixelCenters }) => {
      const [, height = 0, width = 0] = images.shape;
      const centers = halfPixelCenters ?? false;
      const upstream = b.handle(dy);
      const result = b.native.resizeGrad(upstream, height, width, bilinear, alignCorners, centers);
      return b.wrap(result, "float32", images.shape);
    },
  );
}

/** Views of views: each step's handle is freed once the next one exists. */
function chain(
  native: Native,
  first: number,
  ...steps: readonly ((x: number) => number)[]
): number {
  const [start, ...rest] = steps;
  return rest.reduce(
    (x, step) => {
      const next = step(x);
      native.free(x);
      return next;
    },
    start === undefined ? first : start(first),
  );
}

const depthToSpace = kernel<tf.DepthToSpaceInputs, tf.DepthToSpaceAttrs>(
  "DepthToSpace",
  (b, { x }, { blockSize, dataFormat }) => {
    const { native } = b;
    const last = dataFormat === "NHWC";
    const [n = 0, i = 0, j = 0, k = 0] = x.shape;
    const [h, w, c] = last ? [i, j, k] : [j, k, i];
    const depth = c / blockSize ** 2;
    const blocks = last
      ? [n, h, w, blockSize, blockSize, depth]
      : [n, blockSize, blockSize, depth, h, w];
    const order = last ? [0, 1, 3, 2, 4, 5] : [0, 3, 4, 1, 5, 2];
    const shape = last
      ? [n, h * blockSize, w * blockSize, depth]
      : [n, depth, h * blockSize, w * blockSize];
    const result = chain(
      native,
      b.handle(x),
      (t) => native.reshape(t, b.list(blocks)),
      (t) => native.permute(t, b.list(order)),
      (t) => native.reshape(t, b.list(shape)),
    );
    return b.wrap(result, x.dtype, shape);
  },
);

const batchToSpace = kernel<tf.BatchToSpaceNDInputs, tf.BatchToSpaceNDAttrs>(
  "BatchToSpaceND",
  (b, { x }, { blockShape, crops }) => {
    const { native } = b;
    const count = blockShape.reduce((a, c) => a * c, 1);
    const { getReshaped, getPermuted, getReshapedPermuted } = tf.backend_util;
    const reshaped = getReshaped(x.shape, blockShape, count);
    const permutation = getPermuted(reshaped.length, blockShape.length);
    const whole = getReshapedPermuted(x.shape, blockShape, count);
    const crop = (d: number): readonly number[] => crops[d - 1] ?? [0, 0]; // axis 0 is the batch
    const begin = whole.map((_, d) => crop(d)[0] ?? 0);
    const size = whole.map((length, d) => length - (crop(d)[0] ?? 0) - (crop(d)[1] ?? 0));
    const result = chain(
      native,
      b.handle(x),
      (t) => native.reshape(t, b.list(reshaped)),
      (t) => native.permute(t, b.list(permutation)),
      (t) => native.reshape(t, b.list(whole)),
      (t) => native.slice(t, b.list(begin), b.append(size)),
    );
    return b.wrap(result, x.dtype, size);
  },
);

const spaceToBatch = kernel<tf.SpaceToBatchNDInputs, tf.SpaceToBatchNDAttrs>(
  "SpaceToBatchND",
  (b, { x }, { blockShape, paddings }) => {
    const { native } = b;
    const count = blockShape.reduce((a, c) => a * c, 1);
    const { getReshaped, getPermuted, getReshapedPermuted } = tf.backend_util;
    const all = [[0, 0], ...paddings];
    while (all.length < x.shape.length) all.push([0, 0]);
    const padded = x.shape.map((size, d) => size + (all[d]?.[0] ?? 0) + (all[d]?.[1] ?? 0));
    const reshaped = getReshaped(padded, blockShape, count, false);
    const permutation = getPermuted(reshaped.length, blockShape.length, false);
    const shape = getReshapedPermuted(padded, blockShape, count, false);
    const result = chain(
      native,
      b.handle(x),
      (t) => native.pad(t, b.list(all.toReversed().flat()), 0),
      (t) => native.reshape(t, b.list(reshaped)),
      (t) => native.permute(t, b.list(permutation)),
      (t) => native.reshape(t, b.list(shape)),
    );
    return b.wrap(result, x.dtype, shape);
  },
);

export const imageKernels: readonly tf.KernelConfig[] = [
  pool("AvgPool", "averagePool"),
  pool("AvgPool3D", "averagePool"),
  pool("MaxPool", "maxPool"),
  pool("MaxPool3D", "maxPool"),
  poolGrad("AvgPoolGrad", "averagePoolGrad"),
  poolGrad("AvgPool3DGrad", "averagePoolGrad"),
  poolGrad("MaxPoolGrad", "maxPoolGrad"),
  poolGrad("MaxPool3DGrad", "maxPoolGrad"),
  resize("ResizeBilinear", true),
  resize("ResizeNearestNeighbor", false),
  resizeGrad("ResizeBilinearGrad", true),
  resizeGrad("ResizeNearestNeighborGrad", false),
  depthToSpace,
  batchToSpace,
  spaceToBatch,
  kernel<tf.FlipLeftRightInputs>("FlipLeftRight", (b, { image }) =>
    b.wrap(b.native.flip(b.handle(image), b.list([2])), image.dtype, image.shape),
  ),
  kernel<tf.FusedBatchNormInputs, tf.FusedBatchNormAttrs>("FusedBatchNorm", (b, inputs, attrs) => {
    const { x, mean, variance, offset, scale } = inputs;
    const statistics = [b.handle(mean), b.handle(variance)] as const;
    const affine = [b.optional(offset), b.optional(scale)] as const;
    const { varianceEpsilon } = attrs;
    const y = b.native.batchNorm(b.handle(x), ...statistics, ...affine, varianceEpsilon);
    return b.wrap(y, "float32", x.shape);
  }),
  kernel<tf.EinsumInputs, tf.EinsumAttrs>("Einsum", (b, terms, { equation }) => {
    const { allDims, summedDims, idDims } = tf.backend_util.decodeEinsumEquation(
      equation,
      terms.length,
    );
    tf.backend_util.checkEinsumDimSizes(allDims.length, idDims, terms as tf.Tensor[]);
    tf.backend_util.getEinsumComputePath(summedDims, idDims);
    const handles = terms.map((term) => b.handle(term));
    const result = b.native.einsum(equation, b.list(handles));
    return b.wrap(result, terms[0]?.dtype ?? "float32");
  }),
];
