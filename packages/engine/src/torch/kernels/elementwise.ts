/** Unary and binary kernels. TF.js has brought the operands of a binary one to one dtype. */
import type * as tf from "@tensorflow/tfjs-core";
import type { BinaryOp, UnaryOp } from "../../native.js";
import { nativeDtype } from "../backend.js";
import { kernel } from "./table.js";

/** Real functions: integers become float32. */
const realUnary: Readonly<Record<string, UnaryOp>> = {
  Acos: "acos",
  Acosh: "acosh",
  Asin: "asin",
  Asinh: "asinh",
  Atan: "atan",
  Atanh: "atanh",
  Cos: "cos",
  Cosh: "cosh",
  Elu: "elu",
  Erf: "erf",
  Exp: "exp",
  Expm1: "expm1",
  Log: "log",
  Log1p: "log1p",
  Reciprocal: "reciprocal",
  Rsqrt: "rsqrt",
  Selu: "selu",
  Sigmoid: "sigmoid",
  Sin: "sin",
  Sinh: "sinh",
  Softplus: "softplus",
  Sqrt: "sqrt",
  Tan: "tan",
  Tanh: "tanh",
};

/** Functions that keep the dtype. */
const sameUnary: Readonly<Record<string, UnaryOp>> = {
  Abs: "abs",
  Ceil: "ceil",
  Floor: "floor",
  Neg: "neg",
  OnesLike: "onesLike",
  Relu: "relu",
  Relu6: "relu6",
  Round: "round",
  Sign: "sign",
  Square: "square",
  ZerosLike: "zerosLike",
};

const boolUnary: Readonly<Record<string, UnaryOp>> = {
  IsFinite: "isFinite",
  IsInf: "isInf",
  IsNan: "isNan",
  LogicalNot: "logicalNot",
};

const sameBinary: Readonly<Record<string, BinaryOp>> = {
  Add: "add",
  Atan2: "atan2",
  BitwiseAnd: "bitwiseAnd",
  FloorDiv: "floorDiv",
  Maximum: "maximum",
  Minimum: "minimum",
  Mod: "mod",
  Multiply: "mul",
  Pow: "pow",
  RealDiv: "div",
  SquaredDifference: "squaredDifference",
  Sub: "sub",
};

const boolBinary: Readonly<Record<string, BinaryOp>> = {
  Equal: "equal",
  Greater: "greater",
  GreaterEqual: "greaterEqual",
  Less: "less",
  LessEqual: "lessEqual",
  LogicalAnd: "logicalAnd",
  LogicalOr: "logicalOr",
  LogicalXor: "logicalXor",
  NotEqual: "notEqual",
};

function unary(name: string, op: UnaryOp, dtype?: tf.DataType): tf.KernelConfig {
  return kernel<tf.UnaryInputs>(name, (b, { x }) =>
    b.wrap(b.native[op](b.handle(x)), dtype ?? x.dtype, x.shape),
  );
}

function binary(name: string, op: BinaryOp, dtype?: tf.DataType): tf.KernelConfig {
  return kernel<tf.BinaryInputs>(name, (bk, { a, b }) =>
    bk.wrap(bk.native[op](bk.handle(a), bk.handle(b)), dtype ?? a.dtype),
  );
}

/** TF.js asks for `then` and `otherwise` of one shape; a rank-1 condition picks whole rows. */
const select = kernel<tf.SelectInputs>("Select", (b, { condition, t, e }) => {
  const rank = t.shape.length;
  let chosen = b.handle(condition);
  const rows = condition.shape.length === 1 && rank > 1;
  if (rows) {
    const column = [...condition.shape, ...new Array<number>(rank - 1).fill(1)];
    chosen = b.native.reshape(chosen, b.list(column));
  }
  const result = b.native.select(chosen, b.handle(t), b.handle(e));
  const output = b.wrap(result, t.dtype);
  if (rows) b.native.free(chosen);
  return output;
});

const cast = kernel<tf.CastInputs, tf.CastAttrs>("Cast", (b, { x }, { dtype }) =>
  x.dtype === dtype
    ? b.alias(x)
    : b.wrap(b.native.cast(b.handle(x), nativeDtype(dtype)), dtype, x.shape),
);

export const elementwiseKernels: readonly tf.KernelConfig[] = [
  ...Object.entries(realUnary).map(([name, op]) => unary(name, op, "float32")),
  ...Object.entries(sameUnary).map(([name, op]) => unary(name, op)),
  ...Object.entries(boolUnary).map(([name, op]) => unary(name, op, "bool")),
  ...Object.entries(sameBinary).map(([name, op]) => binary(name, op)),
  ...Object.entries(boolBinary).map(([name, op]) => binary(name, op, "bool")),
  kernel<tf.EluGradInputs>("EluGrad", (b, { dy, y }) =>
    b.wrap(b.native.eluGrad(b.handle(dy), b.handle(y)), "float32", y.shape),
  ),
  kernel<tf.PreluInputs>("Prelu", (b, { x, alpha }) =>
    b.wrap(b.native.prelu(b.handle(x), b.handle(alpha)), "float32", x.shape),
  ),
  kernel<tf.LeakyReluInputs, tf.LeakyReluAttrs>("LeakyRelu", (b, { x }, { alpha }) =>
    b.wrap(b.native.leakyRelu(b.handle(x), alpha), "float32", x.shape),
  ),
  kernel<tf.ClipByValueInputs, tf.ClipByValueAttrs>("ClipByValue", (b, { x }, attrs) =>
    b.wrap(b.native.clip(b.handle(x), attrs.clipValueMin, attrs.clipValueMax), x.dtype, x.shape),
  ),
  kernel<tf.StepInputs, tf.StepAttrs>("Step", (b, { x }, { alpha }) =>
    b.wrap(b.native.step(b.handle(x), alpha), x.dtype, x.shape),
  ),
  kernel<tf.AddNInputs>("AddN", (b, terms) => {
    const handles = terms.map((term) => b.handle(term));
    const first = terms[0];
    if (first !== undefined && terms.length === 1) return b.alias(first);
    return b.wrap(b.native.addN(b.list(handles)), first?.dtype ?? "float32");
  }),
  kernel<tf.IdentityInputs>("Identity", (b, { x }) => b.alias(x)),
  select,
  cast,
];
