/** Gather, scatter, one-hot, top-k, matrix products. */
import * as tf from "@tensorflow/tfjs-core";
import { nativeDtype } from "../backend.js";
import { kernel } from "./table.js";

export const indexingKernels: readonly tf.KernelConfig[] = [
  kernel<tf.BatchMatMulInputs, tf.BatchMatMulAttrs>("BatchMatMul", (bk, { a, b }, attrs) => {
    const matrices = a.shape.length >= 2 && b.shape.length >= 2;
    tf.util.assert(
      matrices,
      () => `matMul: [${a.shape}] and [${b.shape}] must have two axes or more`,
    );
    return bk.wrap(
      bk.native.matmul(bk.handle(a), bk.handle(b), attrs.transposeA, attrs.transposeB),
      tf.upcastType(a.dtype, b.dtype),
    );
  }),
  kernel<tf.GatherV2Inputs, tf.GatherV2Attrs>("GatherV2", (b, { x, indices }, attrs) => {
    const [axis = 0] = tf.util.parseAxisParam(attrs.axis, x.shape);
    const batch = attrs.batchDims ?? 0;
    const check = tf.backend_util.segment_util.collectGatherOpShapeInfo;
    const { outputShape } = check(x, indices, axis, batch);
    const batchDims = batch < 0 ? batch + indices.shape.length : batch;
    const result = b.native.gather(b.handle(x), b.handle(indices), axis, batchDims);
    return b.wrap(result, x.dtype, outputShape);
  }),
  kernel<tf.GatherNdInputs>("GatherNd", (b, { params, indices }) =>
    b.wrap(b.native.gatherNd(b.handle(params), b.handle(indices)), params.dtype),
  ),
  kernel<tf.ScatterNdInputs, tf.ScatterNdAttrs>("ScatterNd", (b, { indices, updates }, attrs) => {
    const target = b.handle(updates);
    const result = b.native.scatterNd(b.handle(indices), target, b.list(attrs.shape));
    return b.wrap(result, updates.dtype);
  }),
  kernel<tf.TensorScatterUpdateInputs>("TensorScatterUpdate", (b, inputs) => {
    const { tensor, indices, updates } = inputs;
    const result = b.native.scatterUpdate(b.handle(tensor), b.handle(indices), b.handle(updates));
    return b.wrap(result, tensor.dtype);
  }),
  kernel<tf.UnsortedSegmentSumInputs, tf.UnsortedSegmentSumAttrs>(
    "UnsortedSegmentSum",
    (b, { x, segmentIds }, { numSegments }) =>
      b.wrap(b.native.segmentSum(b.handle(x), b.handle(segmentIds), numSegments), x.dtype),
  ),
  kernel<tf.OneHotInputs, tf.OneHotAttrs>("OneHot", (b, { indices }, attrs) => {
    const { depth, onValue, offValue, dtype } = attrs;
    const result = b.native.oneHot(b.handle(indices), depth, onValue, offValue, nativeDtype(dtype));
    return b.wrap(result, dtype);
  }),
  kernel<tf.TopKInputs, tf.TopKAttrs>("TopK", (b, { x }, { k }) =>
    b.wrapAll(b.native.topK(b.handle(x), k), [x.dtype, "int32"]),
  ),
  kernel<tf.SearchSortedInputs, tf.SearchSortedAttrs>("SearchSorted", (b, inputs, { side }) => {
    const sorted = b.handle(inputs.sortedSequence);
    return b.wrap(
      b.native.searchSorted(sorted, b.handle(inputs.values), side === "right"),
      "int32",
    );
  }),
  kernel<{ condition: tf.TensorInfo }>("Where", (b, { condition }) =>
    b.wrap(b.native.nonzero(b.handle(condition)), "int32"),
  ),
  kernel<tf.BincountInputs, tf.BincountAttrs>("Bincount", (b, { x, weights }, { size }) => {
    const weighted = tf.util.sizeFromShape(weights.shape) > 0 ? weights : undefined;
    const result = b.native.bincount(b.handle(x), b.optional(weighted), size, false);
    return b.wrap(result, weighted?.dtype ?? "float32");
  }),
  kernel<tf.DenseBincountInputs, tf.DenseBincountAttrs>("DenseBincount", (b, inputs, attrs) => {
    const { x, weights } = inputs;
    const weighted = tf.util.sizeFromShape(weights.shape) > 0 ? weights : undefined;
    const binary = attrs.binaryOutput ?? false;
    const result = b.native.bincount(b.handle(x), b.optional(weighted), attrs.size, binary);
    return b.wrap(result, binary ? "float32" : (weighted?.dtype ?? "float32"));
  }),
];
