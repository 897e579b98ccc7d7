/** Reductions, scans and softmax. */
import * as tf from "@tensorflow/tfjs-core";
import type { ReduceOp, ScanOp } from "../../native.js";
import { kernel } from "./table.js";

interface ReduceAttrs {
  /** Null or absent: all axes. */
  readonly axis?: number | number[] | null;
  /** `Max` alone calls its axes so. */
  readonly reductionIndices?: number | number[] | null;
  readonly keepDims: boolean;
}

/** Sums of booleans count in int32. */
const counted = (dtype: tf.DataType): tf.DataType => (dtype === "bool" ? "int32" : dtype);

function reduce(
  name: string,
  op: ReduceOp,
  dtypeOf: (dtype: tf.DataType) => tf.DataType,
): tf.KernelConfig {
  return kernel<tf.SumInputs, ReduceAttrs>(name, (b, { x }, attrs) => {
    const listed = attrs.reductionIndices ?? attrs.axis ?? x.shape.map((_, d) => d);
    const axes = tf.util.parseAxisParam(listed, x.shape);
    const result = b.native[op](b.handle(x), b.list(axes), attrs.keepDims);
    return b.wrap(result, dtypeOf(x.dtype));
  });
}

function scan(name: string, op: ScanOp): tf.KernelConfig {
  return kernel<tf.CumsumInputs, tf.CumsumAttrs>(name, (b, { x }, attrs) => {
    const [axis = 0] = tf.util.parseAxisParam(attrs.axis, x.shape);
    const result = b.native[op](b.handle(x), axis, attrs.exclusive, attrs.reverse);
    return b.wrap(result, counted(x.dtype), x.shape);
  });
}

function argument(name: string, op: "argMax" | "argMin"): tf.KernelConfig {
  return kernel<tf.ArgMaxInputs, tf.ArgMaxAttrs>(name, (b, { x }, attrs) => {
    const [axis = 0] = tf.util.parseAxisParam(attrs.axis, x.shape);
    return b.wrap(b.native[op](b.handle(x), axis), "int32");
  });
}

export const reduceKernels: readonly tf.KernelConfig[] = [
  reduce("All", "all", () => "bool"),
  reduce("Any", "any", () => "bool"),
  reduce("Max", "max", (dtype) => dtype),
  reduce("Min", "min", (dtype) => dtype),
  reduce("Mean", "mean", () => "float32"),
  reduce("Prod", "prod", counted),
  reduce("Sum", "sum", counted),
  scan("Cumsum", "cumsum"),
  scan("Cumprod", "cumprod"),
  argument("ArgMax", "argMax"),
  argument("ArgMin", "argMin"),
  kernel<tf.SoftmaxInputs, tf.SoftmaxAttrs>("Softmax", (b, { logits }, { dim }) =>
    b.wrap(b.native.softmax(b.handle(logits), dim), "float32", logits.shape),
  ),
  kernel<tf.LogSoftmaxInputs, tf.LogSoftmaxAttrs>("LogSoftmax", (b, { logits }, { axis }) =>
    b.wrap(b.native.logSoftmax(b.handle(logits), axis), "float32", logits.shape),
  ),
];
