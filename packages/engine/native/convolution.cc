// Convolutions in one to three dimensions. TF.js keeps channels last, x [N, space.., I], filters
// [window.., I, O]; ATen wants them second, which are views. Padding may be uneven and negative (a crop):
// JS gives what exactly fits the output.
#include "binding.h"
#include "families.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

at::Tensor channelsSecond(T x) { return x.movedim(-1, 1); }
at::Tensor channelsLast(T x) { return x.movedim(1, -1); }

/// Filters as ATen has them, [O, I / groups, window..]. Depthwise ones come as [window.., C, M]: C groups
/// of M outputs each.
at::Tensor filters(T w, bool depthwise) {
  if (!depthwise) return w.movedim(-1, 0).movedim(-1, 1);
  const at::Tensor outFirst = w.flatten(-2).movedim(-1, 0);
  return outFirst.unsqueeze(1);
}

/// (before, after) per dimension, last dimension first, as constant_pad_nd takes them.
c10::SmallVector<int64_t, 8> padding(const Ints& before, const Ints& after) {
  TORCH_CHECK(before.size() == after.size(), "expected padding before and after of equally many axes");
  c10::SmallVector<int64_t, 8> result;
  for (size_t d = before.size(); d-- > 0;) {
    result.push_back(before[d]);
    result.push_back(after[d]);
  }
  return result;
}

struct Window {
  const Ints& stride;
  const Ints& before;
  const Ints& after;
  const Ints& dilation;
  bool depthwise;

  at::Tensor pad(T x) const { return at::constant_pad_nd(channelsSecond(x), padding(before, after)); }
  int64_t groups(T padded) const { return depthwise ? padded.size(1) : 1; }
  c10::SmallVector<int64_t, 8> zeros() const { return c10::SmallVector<int64_t, 8>(stride.size(), 0); }

  std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(T dy, T padded, T w, bool input) const {
    return at::convolution_backward(channelsSecond(dy), padded, filters(w, depthwise).contiguous(), {},
                                    stride, zeros(), dilation, false, zeros(), groups(padded),
                                    {input, !input, false});
  }
};

at::Tensor convolution(T x, T w, const Ints& stride, const Ints& before, const Ints& after,
                       const Ints& dilation, bool depthwise) {
  const Window window{stride, before, after, dilation, depthwise};
  const at::Tensor padded = window.pad(x);
  return channelsLast(at::convolution(padded, filters(w, depthwise), {}, stride, window.zeros(),
                                      dilation, false, window.zeros(), window.groups(padded)));
}

/// Gradient by the input, of shape `inputShape` (channels last).
at::Tensor convolutionGradInput(T dy, T w, const Ints& stride, const Ints& before, const Ints& after,
                                const Ints& dilation, const Ints& inputShape, bool depthwise) {
  const Window window{stride, before, after, dilation, depthwise};
  TORCH_CHECK(inputShape.size() == before.size() + 2 && before.size() == after.size(),
              "the input's shape and the padding are not of one rank");
  // Only its shape matters: what convolution_backward reads of it belongs to the filters' gradient.
  c10::SmallVector<int64_t, 8> paddedShape{inputShape[0], inputShape[inputShape.size() - 1]};
  for (size_t d = 0; d < before.size(); d++) paddedShape.push_back(inputShape[d + 1] + before[d] + after[d]);
  const at::Tensor padded = at::empty(paddedShape, dy.options());
  const at::Tensor dpadded = std::get<0>(window.backward(dy, padded, w, true));
  c10::SmallVector<int64_t, 8> crop = padding(before, after);
  for (int64_t& side : crop) side = -side;
  return channelsLast(at::constant_pad_nd(dpadded, crop));
}

/// Gradient by the filters, of shape `filterShape` (TF.js's order).
at::Tensor convolutionGradFilter(T x, T dy, const Ints& stride, const Ints& before, const Ints& after,
                                 const Ints& dilation, const Ints& filterShape, bool depthwise) {
  const Window window{stride, before, after, dilation, depthwise};
  const at::Tensor w = at::empty(filterShape, dy.options());  // only its shape matters
  const at::Tensor dw = std::get<1>(window.backward(dy, window.pad(x), w, false));
  return depthwise ? dw.squeeze(1).movedim(0, -1).reshape(filterShape)
                   : dw.movedim(1, -1).movedim(0, -1);
}

}  // namespace

void defineConvolution(Module& module) {
  module.add("convolution", &convolution);
  module.add("convolutionGradInput", &convolutionGradInput);
  module.add("convolutionGradFilter", &convolutionGradFilter);
}

}  // namespace paddock
