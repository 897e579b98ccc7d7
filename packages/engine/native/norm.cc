// Normalisations of rows [M,C] and their gradients.
#include "binding.h"
#include "families.h"
#include "precision.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

/// (y [M,C], mean [M], 1 / standard deviation [M]).
std::array<at::Tensor, 3> layerNorm(T x_MC, T gamma_C, T beta_C, double eps) {
  auto [y, mean, rstd] = at::native_layer_norm(x_MC, {x_MC.size(1)}, gamma_C, beta_C, eps);
  return {y, mean.reshape({-1}), rstd.reshape({-1})};
}

/// (dx [M,C] as x, dgamma [C], dbeta [C]).
std::array<at::Tensor, 3> layerNormBackward(T dy_MC, T x_MC, T mean_M, T rstd_M, T gamma_C) {
  // ATen checks none of these before it reads.
  TORCH_CHECK(dy_MC.sizes() == x_MC.sizes() && mean_M.numel() == x_MC.size(0) &&
                  rstd_M.numel() == x_MC.size(0) && gamma_C.numel() == x_MC.size(1),
              "dy must be like x, mean and rstd have a value per row, gamma one per feature");
  auto [dx, dgamma, dbeta] =
      at::native_layer_norm_backward(as(dy_MC, x_MC).contiguous(), x_MC.contiguous(), {x_MC.size(1)},
                                     mean_M.reshape({-1, 1}), rstd_M.reshape({-1, 1}), gamma_C,
                                     at::zeros_like(gamma_C), {true, true, true});
  return {dx, dgamma, dbeta};
}

/// (x / norm, norm [M]) in float32, with norm = max(length of the row, eps).
std::array<at::Tensor, 2> l2Normalize(T rows_MC, double eps) {
  const at::Tensor x_MC = wide(rows_MC);
  const at::Tensor norm = at::linalg_vector_norm(x_MC, 2, {1}).clamp_min_(eps);
  return {at::div(x_MC, norm.unsqueeze(1)), norm};
}

at::Tensor l2NormalizeBackward(T upstream_MC, T y_MC, T norm_M) {
  const at::Tensor dy_MC = as(upstream_MC, y_MC);
  const at::Tensor along = at::mul(dy_MC, y_MC).sum(1, /*keepdim=*/true);
  return at::addcmul(dy_MC, y_MC, along, -1).div_(norm_M.unsqueeze(1));
}

/// Batch normalisation by given statistics over the last axis.
at::Tensor batchNorm(T x, T mean, T variance, const std::optional<at::Tensor>& offset,
                     const std::optional<at::Tensor>& scale, double eps) {
  at::Tensor factor = at::add(variance, eps).rsqrt_();
  if (scale) factor = at::mul(factor, *scale);
  const at::Tensor y = at::sub(x, mean).mul_(factor);
  return offset ? at::add(y, *offset) : y;
}

}  // namespace

void defineNorm(Module& module) {
  module.add("layerNorm", &layerNorm);
  module.add("layerNormBackward", &layerNormBackward);
  module.add("batchNorm", &batchNorm);
  module.add("l2Normalize", &l2Normalize);
  module.add("l2NormalizeBackward", &l2NormalizeBackward);
}

}  // namespace paddock
