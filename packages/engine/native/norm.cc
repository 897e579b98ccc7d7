// Normalisations of rows [M,C] and their gradients.
#include "binding.h"
#include "families.h"
#include "parallel.h"
#include "precision.h"
#include "simd.h"

#include "aten.h"

#include <cmath>

namespace paddock {
namespace {

using T = const at::Tensor&;

#ifdef PADDOCK_SIMD
/// One row of C values in three visits, which for the widths of these models is one to memory.
void layerNormRow(const float* x, const float* gamma, const float* beta, int64_t width, float eps, float* y, float& mean,
                  float& rstd) {
  using namespace simd;
  F8 sums = zero();
  forVectors(width, [&](int64_t c, auto lanes) { sums = add(sums, load(x + c, lanes)); });
  mean = sum(sums) / static_cast<float>(width);
  const F8 centre = all(mean);
  F8 squares = zero();
  forVectors(width, [&](int64_t c, auto lanes) {
    const F8 off = only(sub(load(x + c, lanes), centre), lanes);
    squares = fma(off, off, squares);
  });
  rstd = 1.0f / std::sqrt(sum(squares) / static_cast<float>(width) + eps);
  const F8 scale = all(rstd);
  forVectors(width, [&](int64_t c, auto lanes) {
    const F8 normal = mul(sub(load(x + c, lanes), centre), scale);
    store(y + c, fma(normal, load(gamma + c, lanes), load(beta + c, lanes)), lanes);
  });
}

std::array<at::Tensor, 3> layerNormOnCpu(T x_MC, T gamma_C, T beta_C, double eps) {
  const int64_t rows = x_MC.size(0), width = x_MC.size(1);
  TORCH_CHECK(gamma_C.sizes() == at::IntArrayRef{width} && beta_C.sizes() == at::IntArrayRef{width},
              "gamma and beta must have one value per feature");
  const at::Tensor x = x_MC.contiguous(), gamma = wide(gamma_C).contiguous(), beta = wide(beta_C).contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  at::Tensor mean = at::empty({rows}, x.options()), rstd = at::empty({rows}, x.options());
  const float *from = x.data_ptr<float>(), *gammas = gamma.data_ptr<float>(), *betas = beta.data_ptr<float>();
  float *to = y.data_ptr<float>(), *means = mean.data_ptr<float>(), *rstds = rstd.data_ptr<float>();
  forRows(rows, width, [&](int64_t first, int64_t last) {
    for (int64_t m = first; m < last; m++) {
      layerNormRow(from + m * width, gammas, betas, width, static_cast<float>(eps), to + m * width, means[m], rstds[m]);
    }
  });
  return {y, mean, rstd};
}
#endif

/// (y [M,C], mean [M], 1 / standard deviation [M]).
std::array<at::Tensor, 3> layerNorm(T x_MC, T gamma_C, T beta_C, double eps) {
#ifdef PADDOCK_SIMD
  const bool plain = x_MC.is_cpu() && x_MC.scalar_type() == at::kFloat && x_MC.dim() == 2 && x_MC.size(1) > 0;
  if (plain) return layerNormOnCpu(x_MC, gamma_C, beta_C, eps);
#endif
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

/// (w [K,B] = g v / |v| by rows, the unit rows [K,B], their norms [K]); g has a value per row.
std::array<at::Tensor, 3> weightNorm(T v_KB, T g_K1) {
  const auto [unit, norm] = l2Normalize(v_KB, 0);
  return {at::mul(unit, g_K1.reshape({-1, 1})), unit, norm};
}

/// (dg [K,1], dv [K,B]).
std::array<at::Tensor, 2> weightNormBackward(T dw_KB, T g_K1, T unit_KB, T norm_K) {
  const at::Tensor along = at::mul(dw_KB, unit_KB).sum(1, /*keepdim=*/true);
  // l2Normalize's backward of dw g, whose inner product with the unit row is along g.
  const at::Tensor factor = at::div(g_K1.reshape({-1, 1}), norm_K.reshape({-1, 1}));
  return {along, at::addcmul(dw_KB, unit_KB, along, -1).mul_(factor)};
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
  module.add("weightNorm", &weightNorm);
  module.add("weightNormBackward", &weightNormBackward);
}

}  // namespace paddock
