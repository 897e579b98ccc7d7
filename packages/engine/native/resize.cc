// Resizing of images [N,H,W,C] by TF.js's coordinate rules. A resize is linear and separable: a small
// matrix per axis, whose transpose is the gradient.
#include "binding.h"
#include "families.h"

#include "aten.h"

#include <cmath>

namespace paddock {
namespace {

using T = const at::Tensor&;

struct Rule {
  bool bilinear, alignCorners, halfPixelCenters;
};

/// Weights [out, in] of one axis.
at::Tensor axisWeights(int64_t in, int64_t out, const Rule& rule) {
  TORCH_CHECK(in > 0 && out >= 0, "an axis of ", in, " cannot be resized to ", out);
  const bool corners = rule.alignCorners && out > 1;
  const double ratio = static_cast<double>(corners ? in - 1 : in) / static_cast<double>(corners ? out - 1 : out);
  at::Tensor weights = at::zeros({out, in}, at::kFloat);
  float* w = weights.data_ptr<float>();
  const auto bounded = [in](double i) {
    return std::min(in - 1, std::max<int64_t>(0, static_cast<int64_t>(i)));
  };
  for (int64_t o = 0; o < out; o++) {
    if (rule.bilinear) {
      const double from = rule.halfPixelCenters ? ratio * (o + 0.5) - 0.5 : ratio * o;
      const int64_t low = bounded(std::floor(from)), high = bounded(std::ceil(from));
      const float share = static_cast<float>(from - static_cast<double>(low));
      w[o * in + low] += 1 - share;
      w[o * in + high] += share;
    } else {
      const double from = rule.halfPixelCenters ? ratio * (o + 0.5) : ratio * o;
      w[o * in + bounded(rule.alignCorners ? std::floor(from + 0.5) : std::floor(from))] = 1;
    }
  }
  return weights;
}

/// rows [H',H] and columns [W',W] applied to x [N,H,W,C].
at::Tensor apply(T x, T rows, T columns) {
  const int64_t n = x.size(0), h = x.size(1), w = x.size(2), c = x.size(3);
  const at::Tensor tall = at::matmul(rows, x.reshape({n, h, w * c}));
  const at::Tensor wide = at::matmul(columns, tall.view({n * rows.size(0), w, c}));
  return wide.view({n, rows.size(0), columns.size(0), c});
}

at::Tensor resize(T x, int64_t height, int64_t width, bool bilinear, bool alignCorners,
                  bool halfPixelCenters) {
  const Rule rule{bilinear, alignCorners, halfPixelCenters};
  const at::Tensor image = x.to(at::kFloat);
  return apply(image, axisWeights(x.size(1), height, rule).to(x.device()),
               axisWeights(x.size(2), width, rule).to(x.device()));
}

/// Gradient by an input of `height` x `width`.
at::Tensor resizeGrad(T dy, int64_t height, int64_t width, bool bilinear, bool alignCorners,
                      bool halfPixelCenters) {
  const Rule rule{bilinear, alignCorners, halfPixelCenters};
  return apply(dy, axisWeights(height, dy.size(1), rule).t().to(dy.device()),
               axisWeights(width, dy.size(2), rule).t().to(dy.device()));
}

}  // namespace

void defineResize(Module& module) {
  module.add("resize", &resize);
  module.add("resizeGrad", &resizeGrad);
}

}  // namespace paddock
