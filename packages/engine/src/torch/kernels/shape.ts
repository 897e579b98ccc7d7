/** Shapes: views where libtorch has them, so that reshape, transpose and slice cost no memory. */
import * as tf from "@tensorflow/tfjs-core";
import { nativeDtype, type TorchBackend } from "../backend.js";
import { kernel } from "./table.js";

function reshape(b: TorchBackend, x: tf.TensorInfo, shape: number[]): tf.TensorInfo {
  return b.wrap(b.native.reshape(b.handle(x), b.list(shape)), x.dtype, shape);
}

function slice(
  b: TorchBackend,
  x: tf.TensorInfo,
  begin: readonly number[],
  size: number[],
): tf.TensorInfo {
  const result = b.native.slice(b.handle(x), b.list(begin), b.append(size));
  return b.wrap(result, x.dtype, size);
}

function concat(b: TorchBackend, parts: tf.TensorInfo[], axis: number): tf.TensorInfo {
  const handles = parts.map((part) => b.handle(part));
  return b.wrap(b.native.concat(b.list(handles), axis), parts[0]?.dtype ?? "float32");
}

/** Parts of x along an axis, one after the other. */
function split(b: TorchBackend, x: tf.TensorInfo, sizes: readonly number[], axis: number) {
  let start = 0;
  return sizes.map((size) => {
    const begin = x.shape.map((_, d) => (d === axis ? start : 0));
    start += size;
    return slice(b, x, begin, x.shape.with(axis, size));
  });
}

function stridedSlice(b: TorchBackend, x: tf.TensorInfo, attrs: tf.StridedSliceAttrs) {
  const plan = tf.slice_util.sliceInfo(
    x.shape,
    attrs.begin,
    attrs.end,
    attrs.strides,
    attrs.beginMask,
    attrs.endMask,
    attrs.ellipsisMask,
    attrs.newAxisMask,
    attrs.shrinkAxisMask,
  );
  const taken = b.native.stridedSlice(
    b.handle(x),
    b.list(plan.begin),
    b.append(plan.end),
    b.append(plan.strides),
  );
  const result = b.native.reshape(taken, b.list(plan.finalShape));
  b.native.free(taken);
  return b.wrap(result, x.dtype, plan.finalShape);
}

export const shapeKernels: readonly tf.KernelConfig[] = [
  kernel<tf.ReshapeInputs, tf.ReshapeAttrs>("Reshape", (b, { x }, attrs) =>
    reshape(b, x, tf.util.inferFromImplicitShape(attrs.shape, tf.util.sizeFromShape(x.shape))),
  ),
  kernel<tf.ExpandDimsInputs, tf.ExpandDimsAttrs>("ExpandDims", (b, { input }, { dim }) => {
    const rank = input.shape.length;
    tf.util.assert(
      -rank - 1 <= dim && dim <= rank,
      () => `expandDims: no axis ${dim} in rank ${rank}`,
    );
    const axis = dim < 0 ? rank + dim + 1 : dim;
    return reshape(b, input, input.shape.toSpliced(axis, 0, 1));
  }),
  kernel<tf.TransposeInputs, tf.TransposeAttrs>("Transpose", (b, { x }, { perm }) =>
    b.wrap(b.native.permute(b.handle(x), b.list(perm)), x.dtype),
  ),
  kernel<tf.SliceInputs, tf.SliceAttrs>("Slice", (b, { x }, attrs) => {
    const { begin: from, size: count } = attrs;
    const [begin = [], size = []] = tf.slice_util.parseSliceParams(x as tf.Tensor, from, count);
    tf.slice_util.assertParamsValid(x, begin, size);
    return slice(b, x, begin, size);
  }),
  kernel<tf.StridedSliceInputs, tf.StridedSliceAttrs>("StridedSlice", (b, { x }, attrs) =>
    stridedSlice(b, x, attrs),
  ),
  kernel<tf.ConcatInputs, tf.ConcatAttrs>("Concat", (b, parts, attrs) => {
    const [axis = 0] = tf.util.parseAxisParam(attrs.axis, parts[0]?.shape ?? []);
    return concat(b, parts, axis);
  }),
  kernel<tf.PackInputs, tf.PackAttrs>("Pack", (b, parts, { axis }) => {
    const handles = parts.map((part) => b.handle(part));
    const alike = parts.every(({ dtype }) => dtype === parts[0]?.dtype);
    tf.util.assert(alike, () => `stack: dtypes differ: ${parts.map(({ dtype }) => dtype)}`);
    return b.wrap(b.native.stack(b.list(handles), axis), parts[0]?.dtype ?? "float32");
  }),
  kernel<tf.UnpackInputs, tf.UnpackAttrs>("Unpack", (b, { value }, attrs) => {
    const [axis = 0] = tf.util.parseAxisParam(attrs.axis, value.shape);
    const shape = value.shape.toSpliced(axis, 1);
    const x = b.handle(value);
    return Array.from({ length: value.shape[axis] ?? 0 }, (_, i) =>
      b.wrap(b.native.selectAt(x, axis, i), value.dtype, shape),
    );
  }),
  kernel<tf.SplitVInputs, tf.SplitVAttrs>("SplitV", (b, { x }, attrs) => {
    const [axis = 0] = tf.util.parseAxisParam(attrs.axis, x.shape);
    const sizes = tf.backend_util.prepareSplitSize(x as tf.Tensor, attrs.numOrSizeSplits, axis);
    return split(b, x, sizes, axis);
  }),
  kernel<tf.TileInputs, tf.TileAttrs>("Tile", (b, { x }, { reps }) =>
    b.wrap(b.native.tile(b.handle(x), b.list(reps)), x.dtype),
  ),
  kernel<tf.BroadcastToInputs, tf.BroadCastToAttrs>("BroadcastTo", (b, { x }, { shape }) =>
    b.wrap(b.native.broadcastTo(b.handle(x), b.list(shape)), x.dtype, shape),
  ),
  kernel<tf.ReverseInputs, tf.ReverseAttrs>("Reverse", (b, { x }, { dims }) => {
    const axes = tf.util.parseAxisParam(dims, x.shape);
    return b.wrap(b.native.flip(b.handle(x), b.list(axes)), x.dtype, x.shape);
  }),
  kernel<tf.PadV2Inputs, tf.PadV2Attrs>("PadV2", (b, { x }, { paddings, constantValue }) => {
    const lastFirst = paddings.toReversed().flat();
    return b.wrap(b.native.pad(b.handle(x), b.list(lastFirst), constantValue), x.dtype);
  }),
  kernel<tf.MirrorPadInputs, tf.MirrorPadAttrs>("MirrorPad", (b, { x }, { paddings, mode }) => {
    const source = b.handle(x);
    const before = b.list(paddings.map(([first]) => first));
    const after = b.append(paddings.map(([, last]) => last));
    return b.wrap(b.native.mirrorPad(source, before, after, mode === "symmetric"), x.dtype);
  }),
  kernel<object, tf.FillAttrs>("Fill", (b, _, attrs) => {
    const { shape, value } = attrs;
    const dtype = attrs.dtype ?? (typeof value === "string" ? "string" : "float32");
    if (typeof value === "string") {
      const text = tf.util.encodeString(value);
      const values = new Array<Uint8Array>(tf.util.sizeFromShape(shape)).fill(text);
      return { dataId: b.write(values, shape, dtype), shape, dtype };
    }
    return b.wrap(b.native.fill(b.list(shape), value, nativeDtype(dtype)), dtype, shape);
  }),
  kernel<object, tf.RangeAttrs>("Range", (b, _, { start, stop, step, dtype }) => {
    const stride = step === 1 && stop < start ? -1 : step; // TF.js's default counts down by itself
    const count = Math.max(0, Math.ceil((stop - start) / stride));
    return b.wrap(b.native.range(start, stride, count, nativeDtype(dtype)), dtype, [count]);
  }),
  kernel<object, tf.LinSpaceAttrs>("LinSpace", (b, _, { start, stop, num }) => {
    const stride = num > 1 ? (stop - start) / (num - 1) : 0;
    return b.wrap(b.native.range(start, stride, num, nativeDtype("float32")), "float32", [num]);
  }),
  kernel<tf.DiagInputs>("Diag", (b, { x }) => b.wrap(b.native.diag(b.handle(x)), x.dtype)),
];
