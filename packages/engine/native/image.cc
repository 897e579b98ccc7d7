// Images and convolutions. TF.js keeps channels last, ATen's ops want them second: views do that.
#include "binding.h"
#include "families.h"

#include <ATen/ATen.h>

namespace paddock {
namespace {

using T = const at::Tensor&;

/// Bilinear resize of [N,H,W,C] to [N,height,width,C], by the rules of TF.js's two switches.
at::Tensor resizeBilinear(T x_NHWC, int64_t height, int64_t width, bool alignCorners) {
  const at::Tensor x = x_NHWC.to(at::kFloat).permute({0, 3, 1, 2});
  return at::upsample_bilinear2d(x, {height, width}, alignCorners).permute({0, 2, 3, 1});
}

}  // namespace

void defineImage(Module& module) { module.add<&resizeBilinear>("resizeBilinear"); }

}  // namespace paddock
