// Pooling in two and three dimensions over x [N, space.., C]. Padding may be uneven and negative: JS gives
// what exactly fits the output. Padding counts for nothing: neither in an average nor as a maximum.
#include "binding.h"
#include "families.h"

#include "aten.h"

#include <limits>

namespace paddock {
namespace {

using T = const at::Tensor&;

c10::SmallVector<int64_t, 8> padding(const Ints& before, const Ints& after) {
  TORCH_CHECK(before.size() == after.size(), "expected padding before and after of equally many axes");
  c10::SmallVector<int64_t, 8> result;
  for (size_t d = before.size(); d-- > 0;) {
    result.push_back(before[d]);
    result.push_back(after[d]);
  }
  return result;
}

c10::SmallVector<int64_t, 8> cropping(const Ints& before, const Ints& after) {
  c10::SmallVector<int64_t, 8> crop = padding(before, after);
  for (int64_t& side : crop) side = -side;
  return crop;
}

at::Tensor sums(T x, const Ints& window, const Ints& stride) {
  return window.size() == 2 ? at::avg_pool2d(x, window, stride, 0, false, true, 1)
                            : at::avg_pool3d(x, window, stride, 0, false, true, 1);
}

at::Tensor sumsBackward(T dy, T x, const Ints& window, const Ints& stride) {
  const c10::SmallVector<int64_t, 8> none(window.size(), 0);
  return window.size() == 2 ? at::avg_pool2d_backward(dy, x, window, stride, none, false, true, 1)
                            : at::avg_pool3d_backward(dy, x, window, stride, none, false, true, 1);
}

/// How many values that are no padding each window sees, at least one, [1, 1, space..].
at::Tensor counts(T x, const Ints& window, const Ints& stride, const Ints& before, const Ints& after) {
  c10::SmallVector<int64_t, 8> shape(x.sizes().begin(), x.sizes().end());
  shape[0] = shape[1] = 1;
  const at::Tensor ones = at::ones(shape, x.options());
  // A window that lies in the padding alone averages to zero.
  return sums(at::constant_pad_nd(ones, padding(before, after)), window, stride).clamp_min_(1);
}

at::Tensor averagePool(T x_last, const Ints& window, const Ints& stride, const Ints& before,
                       const Ints& after) {
  const at::Tensor x = x_last.movedim(-1, 1);
  const at::Tensor total = sums(at::constant_pad_nd(x, padding(before, after)), window, stride);
  return at::div(total, counts(x, window, stride, before, after)).movedim(1, -1);
}

at::Tensor averagePoolGrad(T dy_last, T x_last, const Ints& window, const Ints& stride,
                           const Ints& before, const Ints& after) {
  const at::Tensor x = x_last.movedim(-1, 1);
  const at::Tensor dtotal = at::div(dy_last.movedim(-1, 1), counts(x, window, stride, before, after));
  const at::Tensor padded = at::constant_pad_nd(x, padding(before, after));
  const at::Tensor dpadded = sumsBackward(dtotal.contiguous(), padded, window, stride);
  return at::constant_pad_nd(dpadded, cropping(before, after)).movedim(1, -1);
}

/// NaN never is a maximum in TF.js, and always in ATen.
at::Tensor padLowest(T x, const Ints& before, const Ints& after) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return at::constant_pad_nd(at::nan_to_num(x, -kInfinity, kInfinity, -kInfinity), padding(before, after),
                             -kInfinity);
}

std::tuple<at::Tensor, at::Tensor> maxima(T padded, const Ints& window, const Ints& stride) {
  return window.size() == 2 ? at::max_pool2d_with_indices(padded, window, stride)
                            : at::max_pool3d_with_indices(padded, window, stride);
}

at::Tensor maxPool(T x_last, const Ints& window, const Ints& stride, const Ints& before,
                   const Ints& after) {
  const at::Tensor padded = padLowest(x_last.to(at::kFloat).movedim(-1, 1), before, after);
  return std::get<0>(maxima(padded, window, stride)).to(x_last.scalar_type()).movedim(1, -1);
}

at::Tensor maxPoolGrad(T dy_last, T x_last, const Ints& window, const Ints& stride, const Ints& before,
                       const Ints& after) {
  const at::Tensor padded = padLowest(x_last.movedim(-1, 1), before, after).contiguous();
  const at::Tensor dy = dy_last.movedim(-1, 1).contiguous();
  const at::Tensor indices = std::get<1>(maxima(padded, window, stride));
  const c10::SmallVector<int64_t, 8> none(window.size(), 0), ones(window.size(), 1);
  const at::Tensor dpadded =
      window.size() == 2
          ? at::max_pool2d_with_indices_backward(dy, padded, window, stride, none, ones, false, indices)
          : at::max_pool3d_with_indices_backward(dy, padded, window, stride, none, ones, false, indices);
  return at::constant_pad_nd(dpadded, cropping(before, after)).movedim(1, -1);
}

}  // namespace

void definePooling(Module& module) {
  module.add("averagePool", &averagePool);
  module.add("averagePoolGrad", &averagePoolGrad);
  module.add("maxPool", &maxPool);
  module.add("maxPoolGrad", &maxPoolGrad);
}

}  // namespace paddock
