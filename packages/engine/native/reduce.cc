// Reductions over listed axes, and scans along one axis.
#include "binding.h"
#include "families.h"

#include "aten.h"

#include <algorithm>
#include <limits>

namespace paddock {
namespace {

using T = const at::Tensor&;

// ATen reduces over all axes when the list is empty; TF.js then means none.
at::Tensor sum(T x, const Ints& axes, bool keepDims) {
  const at::ScalarType type = x.scalar_type() == at::kBool ? at::kInt : x.scalar_type();
  return axes.size() == 0 ? x.to(type, false, /*copy=*/true) : at::sum(x, axes, keepDims, type);
}

at::Tensor mean(T x, const Ints& axes, bool keepDims) {
  const at::Tensor values = x.to(at::kFloat);
  return axes.size() == 0 ? values.clone() : at::mean(values, axes, keepDims);
}

at::Tensor max(T x, const Ints& axes, bool keepDims) {
  return axes.size() == 0 ? x.clone() : at::amax(x, axes, keepDims);
}

at::Tensor min(T x, const Ints& axes, bool keepDims) {
  return axes.size() == 0 ? x.clone() : at::amin(x, axes, keepDims);
}

// These exist in ATen for one axis at a time: highest axis first keeps the others' numbers valid.
template <class Reduce>
at::Tensor oneByOne(T x, const Ints& axes, bool keepDims, Reduce reduce) {
  c10::SmallVector<int64_t, 8> order(axes.values.begin(), axes.values.end());
  std::sort(order.begin(), order.end(), std::greater<>());
  at::Tensor result = x.alias();
  for (const int64_t axis : order) result = reduce(result, axis, keepDims);
  return order.empty() ? result.clone() : result;
}

at::Tensor prod(T x, const Ints& axes, bool keepDims) {
  const at::ScalarType type = x.scalar_type() == at::kBool ? at::kInt : x.scalar_type();
  return oneByOne(x.to(type), axes, keepDims,
                  [type](T t, int64_t axis, bool keep) { return at::prod(t, axis, keep, type); });
}

at::Tensor all(T x, const Ints& axes, bool keepDims) {
  return oneByOne(x.to(at::kBool), axes, keepDims,
                  [](T t, int64_t axis, bool keep) { return at::all(t, axis, keep); });
}

at::Tensor any(T x, const Ints& axes, bool keepDims) {
  return oneByOne(x.to(at::kBool), axes, keepDims,
                  [](T t, int64_t axis, bool keep) { return at::any(t, axis, keep); });
}

at::Tensor numeric(T x) { return x.scalar_type() == at::kBool ? x.to(at::kInt) : x; }

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// x with NaN replaced: it is never the largest nor the smallest in TF.js, and always in ATen.
at::Tensor withoutNan(T x, double replacement) {
  return at::isFloatingType(x.scalar_type()) ? at::nan_to_num(x, replacement, kInfinity, -kInfinity)
                                             : numeric(x);
}

at::Tensor argMax(T x, int64_t axis) { return at::argmax(withoutNan(x, -kInfinity), axis).to(at::kInt); }
at::Tensor argMin(T x, int64_t axis) { return at::argmin(withoutNan(x, kInfinity), axis).to(at::kInt); }

template <class Scan>
at::Tensor scan(T x, int64_t axis, bool exclusive, bool reverse, double start, Scan run) {
  TORCH_CHECK(axis >= 0 && axis < x.dim(), "axis ", axis, " of ", x.dim());
  at::Tensor values = reverse ? at::flip(x, {axis}) : x.alias();
  if (exclusive && x.size(axis) > 0) {
    auto head = x.sizes().vec();
    head[axis] = 1;
    values = at::cat({at::full(head, start, x.options()), values.narrow(axis, 0, x.size(axis) - 1)}, axis);
  }
  const at::Tensor result = run(values);
  return reverse ? at::flip(result, {axis}) : result;
}

at::Tensor cumsum(T x, int64_t axis, bool exclusive, bool reverse) {
  const at::Tensor values = numeric(x);
  return scan(values, axis, exclusive, reverse, 0,
              [&](T t) { return at::cumsum(t, axis, t.scalar_type()); });
}

at::Tensor cumprod(T x, int64_t axis, bool exclusive, bool reverse) {
  const at::Tensor values = numeric(x);
  return scan(values, axis, exclusive, reverse, 1,
              [&](T t) { return at::cumprod(t, axis, t.scalar_type()); });
}

}  // namespace

void defineReduce(Module& module) {
  module.add("sum", &sum);
  module.add("mean", &mean);
  module.add("max", &max);
  module.add("min", &min);
  module.add("prod", &prod);
  module.add("all", &all);
  module.add("any", &any);
  module.add("argMax", &argMax);
  module.add("argMin", &argMin);
  module.add("cumsum", &cumsum);
  module.add("cumprod", &cumprod);
}

}  // namespace paddock
