// Shapes: views where ATen has one (reshape, permute, slice, select), copies elsewhere; and new tensors.
#include "binding.h"
#include "families.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

at::Tensor reshape(T x, const Ints& shape) { return x.reshape(shape); }
at::Tensor permute(T x, const Ints& axes) { return x.permute(axes); }
at::Tensor broadcastTo(T x, const Ints& shape) { return x.expand(shape); }
at::Tensor tile(T x, const Ints& repeats) { return x.repeat(repeats); }
at::Tensor flip(T x, const Ints& axes) { return at::flip(x, axes); }
at::Tensor select(T x, int64_t axis, int64_t index) { return x.select(axis, index); }

/// ATen checks what a list says, not that it is there for every axis.
void checkPerAxis(T x, const Ints& list) {
  TORCH_CHECK(static_cast<int64_t>(list.size()) == x.dim(), "expected one number for each of ", x.dim(),
              " axes, got ", list.size());
}

/// A view of `size[d]` elements from `begin[d]` on along every axis d.
at::Tensor slice(T x, const Ints& begin, const Ints& size) {
  checkPerAxis(x, begin);
  checkPerAxis(x, size);
  at::Tensor view = x.alias();
  for (int64_t d = 0; d < x.dim(); d++) {
    if (begin[d] != 0 || size[d] != x.size(d)) view = view.narrow(d, begin[d], size[d]);
  }
  return view;
}

/// Every `stride`-th element of [begin, end) along each axis. ATen has no negative strides: such an
/// axis is copied in reverse, from the last element taken to the first.
at::Tensor stridedSlice(T x, const Ints& begin, const Ints& end, const Ints& stride) {
  for (const Ints* list : {&begin, &end, &stride}) checkPerAxis(x, *list);
  at::Tensor view = x.alias();
  c10::SmallVector<int64_t, 8> reversed;
  for (int64_t d = 0; d < x.dim(); d++) {
    TORCH_CHECK(stride[d] != 0, "the stride of axis ", d, " is 0");
    if (stride[d] > 0) {
      view = view.slice(d, begin[d], std::max(begin[d], end[d]), stride[d]);
      continue;
    }
    const int64_t count = std::max<int64_t>(0, (begin[d] - end[d] - stride[d] - 1) / -stride[d]);
    const int64_t first = count == 0 ? 0 : begin[d] + (count - 1) * stride[d];
    view = view.slice(d, first, count == 0 ? 0 : begin[d] + 1, -stride[d]);
    reversed.push_back(d);
  }
  return reversed.empty() ? view : at::flip(view, reversed);
}

at::Tensor concat(const Tensors& parts, int64_t axis) { return at::cat(parts, axis); }
at::Tensor stack(const Tensors& parts, int64_t axis) { return at::stack(parts, axis); }

/// `padding` holds (before, after) per axis, last axis first, as ATen wants it.
at::Tensor pad(T x, const Ints& padding, double value) {
  return at::constant_pad_nd(x, padding, value);
}

/// Reflection with (symmetric) or without (reflect) the border element, axis by axis.
at::Tensor mirrorPad(T x, const Ints& before, const Ints& after, bool symmetric) {
  checkPerAxis(x, before);
  checkPerAxis(x, after);
  at::Tensor result = x.alias();
  const int64_t offset = symmetric ? 0 : 1;
  for (int64_t d = 0; d < x.dim(); d++) {
    const int64_t size = x.size(d);
    if (before[d] == 0 && after[d] == 0) continue;
    const at::Tensor head = result.narrow(d, offset, before[d]).flip({d});
    const at::Tensor tail = result.narrow(d, size - offset - after[d], after[d]).flip({d});
    result = at::cat({head, result, tail}, d);
  }
  return result;
}

at::TensorOptions options(Call& call, Dtype dtype) {
  return at::TensorOptions(scalarTypeOf(dtype)).device(call.state().device);
}

at::Tensor fill(Call& call, const Ints& shape, double value, Dtype dtype) {
  return at::full(shape, value, options(call, dtype));
}

at::Tensor range(Call& call, double start, double stride, int64_t count, Dtype dtype) {
  const at::Tensor steps = at::arange(count, at::TensorOptions(at::kDouble).device(call.state().device));
  return steps.mul_(stride).add_(start).to(scalarTypeOf(dtype));
}

at::Tensor diag(T x) {
  auto shape = x.sizes().vec();
  shape.insert(shape.end(), x.sizes().begin(), x.sizes().end());
  return at::diag(x.reshape({-1})).reshape(shape);
}

}  // namespace

void defineShape(Module& module) {
  module.add("reshape", &reshape);
  module.add("permute", &permute);
  module.add("broadcastTo", &broadcastTo);
  module.add("tile", &tile);
  module.add("flip", &flip);
  module.add("selectAt", &select);
  module.add("slice", &slice);
  module.add("stridedSlice", &stridedSlice);
  module.add("concat", &concat);
  module.add("stack", &stack);
  module.add("pad", &pad);
  module.add("mirrorPad", &mirrorPad);
  module.add("fill", &fill);
  module.add("range", &range);
  module.add("diag", &diag);
}

}  // namespace paddock
