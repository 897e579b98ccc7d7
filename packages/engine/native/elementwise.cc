// One value in, one value out: unary, binary with broadcasting, comparisons, selection, casts.
// TF.js brings both operands of a binary op to one dtype before the kernel is called.
#include "binding.h"
#include "families.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

/// ATen computes some functions of integers in floating point; TF.js's kernels keep the dtype.
at::Tensor as(at::Tensor result, T like) {
  return result.scalar_type() == like.scalar_type() ? result : result.to(like.scalar_type());
}

#define PADDOCK_UNARY(name, expression) \
  at::Tensor name(T x) { return expression; }

PADDOCK_UNARY(abs, at::abs(x))
PADDOCK_UNARY(acos, at::acos(x))
PADDOCK_UNARY(acosh, at::acosh(x))
PADDOCK_UNARY(asin, at::asin(x))
PADDOCK_UNARY(asinh, at::asinh(x))
PADDOCK_UNARY(atan, at::atan(x))
PADDOCK_UNARY(atanh, at::atanh(x))
PADDOCK_UNARY(ceil, at::ceil(x))
PADDOCK_UNARY(cos, at::cos(x))
PADDOCK_UNARY(cosh, at::cosh(x))
PADDOCK_UNARY(erf, at::erf(x))
PADDOCK_UNARY(exp, at::exp(x))
PADDOCK_UNARY(expm1, at::expm1(x))
PADDOCK_UNARY(floor, at::floor(x))
PADDOCK_UNARY(isFinite, at::isfinite(x))
PADDOCK_UNARY(isInf, at::isinf(x))
PADDOCK_UNARY(isNan, at::isnan(x))
PADDOCK_UNARY(log, at::log(x))
PADDOCK_UNARY(log1p, at::log1p(x))
PADDOCK_UNARY(logicalNot, at::logical_not(x))
PADDOCK_UNARY(neg, at::neg(x))
PADDOCK_UNARY(onesLike, at::ones_like(x))
PADDOCK_UNARY(reciprocal, at::reciprocal(x))
PADDOCK_UNARY(relu, at::relu(x))
PADDOCK_UNARY(relu6, at::clamp(x, 0, 6))
PADDOCK_UNARY(round, at::round(x))
PADDOCK_UNARY(rsqrt, at::rsqrt(x))
PADDOCK_UNARY(selu, at::selu(x))
PADDOCK_UNARY(sigmoid, at::sigmoid(x))
PADDOCK_UNARY(sign, at::sign(x))
PADDOCK_UNARY(sin, at::sin(x))
PADDOCK_UNARY(sinh, at::sinh(x))
PADDOCK_UNARY(softplus, at::softplus(x))
PADDOCK_UNARY(sqrt, at::sqrt(x))
PADDOCK_UNARY(square, at::mul(x, x))
PADDOCK_UNARY(tan, at::tan(x))
PADDOCK_UNARY(tanh, at::tanh(x))
PADDOCK_UNARY(zerosLike, at::zeros_like(x))

#undef PADDOCK_UNARY

#define PADDOCK_BINARY(name, expression) \
  at::Tensor name(T a, T b) { return expression; }

PADDOCK_BINARY(add, at::add(a, b))
PADDOCK_BINARY(atan2, as(at::atan2(a, b), a))
PADDOCK_BINARY(bitwiseAnd, at::bitwise_and(a, b))
PADDOCK_BINARY(div, as(at::div(a, b), a))
PADDOCK_BINARY(equal, at::eq(a, b))
PADDOCK_BINARY(greater, at::gt(a, b))
PADDOCK_BINARY(greaterEqual, at::ge(a, b))
PADDOCK_BINARY(less, at::lt(a, b))
PADDOCK_BINARY(lessEqual, at::le(a, b))
PADDOCK_BINARY(logicalAnd, at::logical_and(a, b))
PADDOCK_BINARY(logicalOr, at::logical_or(a, b))
PADDOCK_BINARY(logicalXor, at::logical_xor(a, b))
PADDOCK_BINARY(maximum, at::maximum(a, b))
PADDOCK_BINARY(minimum, at::minimum(a, b))
PADDOCK_BINARY(mod, at::remainder(a, b))
PADDOCK_BINARY(mul, at::mul(a, b))
PADDOCK_BINARY(notEqual, at::ne(a, b))
PADDOCK_BINARY(prelu, at::where(at::lt(a, 0), at::mul(a, b), a))
PADDOCK_BINARY(sub, at::sub(a, b))
PADDOCK_BINARY(squaredDifference, at::sub(a, b).square_())
// From an ELU's output: its slope is 1 above zero and y + 1 below.
PADDOCK_BINARY(eluGrad, at::where(at::ge(b, 0), a, at::mul(a, at::add(b, 1))))

#undef PADDOCK_BINARY

// Integers go through double: exact, and a zero divisor gives garbage as in TF.js instead of an error.
at::Tensor floorDiv(T a, T b) {
  if (at::isFloatingType(a.scalar_type())) return at::floor(at::div(a, b));
  return at::div(a.to(at::kDouble), b.to(at::kDouble)).floor_().to(a.scalar_type());
}

at::Tensor power(T a, T b) {
  if (at::isFloatingType(a.scalar_type())) return at::pow(a, b);
  return at::pow(a.to(at::kDouble), b.to(at::kDouble)).to(a.scalar_type());
}

at::Tensor clip(T x, double low, double high) { return as(at::clamp(x, low, high), x); }
at::Tensor elu(T x) { return at::elu(x); }
at::Tensor leakyRelu(T x, double alpha) { return at::where(at::lt(x, 0), at::mul(x, alpha), x); }

// 1 above zero, alpha at and below it, NaN stays.
at::Tensor step(T x, double alpha) {
  const at::Tensor y = at::where(at::gt(x, 0), at::ones_like(x), at::full_like(x, alpha));
  return at::isFloatingType(x.scalar_type()) ? at::where(at::isnan(x), x, y) : y;
}

at::Tensor cast(T x, Dtype dtype) { return x.to(scalarTypeOf(dtype)); }

at::Tensor select(T condition, T then, T otherwise) { return at::where(condition, then, otherwise); }

at::Tensor addN(const Tensors& terms) {
  at::Tensor sum = at::add(terms.at(0), terms.at(1));
  for (size_t i = 2; i < terms.size(); i++) sum.add_(terms[i]);
  return sum;
}

}  // namespace

void defineElementwise(Module& module) {
  module.add("abs", &abs);
  module.add("acos", &acos);
  module.add("acosh", &acosh);
  module.add("add", &add);
  module.add("addN", &addN);
  module.add("asin", &asin);
  module.add("asinh", &asinh);
  module.add("atan", &atan);
  module.add("atan2", &atan2);
  module.add("atanh", &atanh);
  module.add("bitwiseAnd", &bitwiseAnd);
  module.add("cast", &cast);
  module.add("ceil", &ceil);
  module.add("clip", &clip);
  module.add("cos", &cos);
  module.add("cosh", &cosh);
  module.add("div", &div);
  module.add("elu", &elu);
  module.add("eluGrad", &eluGrad);
  module.add("equal", &equal);
  module.add("erf", &erf);
  module.add("exp", &exp);
  module.add("expm1", &expm1);
  module.add("floor", &floor);
  module.add("floorDiv", &floorDiv);
  module.add("greater", &greater);
  module.add("greaterEqual", &greaterEqual);
  module.add("isFinite", &isFinite);
  module.add("isInf", &isInf);
  module.add("isNan", &isNan);
  module.add("leakyRelu", &leakyRelu);
  module.add("less", &less);
  module.add("lessEqual", &lessEqual);
  module.add("log", &log);
  module.add("log1p", &log1p);
  module.add("logicalAnd", &logicalAnd);
  module.add("logicalNot", &logicalNot);
  module.add("logicalOr", &logicalOr);
  module.add("logicalXor", &logicalXor);
  module.add("maximum", &maximum);
  module.add("minimum", &minimum);
  module.add("mod", &mod);
  module.add("mul", &mul);
  module.add("neg", &neg);
  module.add("notEqual", &notEqual);
  module.add("onesLike", &onesLike);
  module.add("pow", &power);
  module.add("prelu", &prelu);
  module.add("reciprocal", &reciprocal);
  module.add("relu", &relu);
  module.add("relu6", &relu6);
  module.add("round", &round);
  module.add("rsqrt", &rsqrt);
  module.add("select", &select);
  module.add("selu", &selu);
  module.add("sigmoid", &sigmoid);
  module.add("sign", &sign);
  module.add("sin", &sin);
  module.add("sinh", &sinh);
  module.add("softplus", &softplus);
  module.add("sqrt", &sqrt);
  module.add("square", &square);
  module.add("squaredDifference", &squaredDifference);
  module.add("step", &step);
  module.add("sub", &sub);
  module.add("tan", &tan);
  module.add("tanh", &tanh);
  module.add("zerosLike", &zerosLike);
}

}  // namespace paddock
